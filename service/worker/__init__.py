"""The worker: Celery tasks that are doors."""
