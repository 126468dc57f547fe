"""Training, step: how good the fitted model is on the latest labels."""
