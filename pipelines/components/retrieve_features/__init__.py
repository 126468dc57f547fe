"""Step 2 of batch inference: each requested row with its features as of a moment, and its status."""
