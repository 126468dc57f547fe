"""Serving, step: a version of a model as a KServe InferenceService."""
