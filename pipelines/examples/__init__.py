"""Pipelines to copy from: `python -m pipelines.compile OUT --examples` compiles them, and nobody else needs them."""
