"""Step 3 of batch inference: a class and a probability for every row that has all features."""
