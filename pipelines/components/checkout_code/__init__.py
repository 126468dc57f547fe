"""Training, step: the model repository at exactly one commit."""
