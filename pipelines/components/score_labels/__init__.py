"""The step of the feedback pipeline: labels that came later against the predictions that were made before."""
