"""Exit task of every pipeline: which step ended a run, and why."""
