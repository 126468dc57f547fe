"""Step 1 of batch inference: the requested ids, taken from the file that arrived."""
