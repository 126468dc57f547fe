"""Training, step: the repository's estimator, fitted."""
