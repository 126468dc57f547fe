"""Training, step: labels of a window with the features each had at that moment, split by time."""
