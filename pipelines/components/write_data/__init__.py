"""Step 4 of batch inference: the output object, and the account of the whole run."""
