"""Training, step: the training data held to a suite of Great Expectations."""
