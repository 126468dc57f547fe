"""The HTTP door: hooks in, health and metrics, and a small read API."""
