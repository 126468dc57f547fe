"""`kfp-triggers worker`: Celery's worker in this process, its tasks one call each, and the duties beside it.

Threads, not processes: a claim is short, nothing is computed here, and kill -9 of one pid ends all of it.
"""

import warnings
from collections.abc import Callable

from celery.platforms import SecurityWarning
from celery.signals import setup_logging

from service.broker import celery_app
from service.duties import Duties
from service.flow.steps import STEPS, step
from service.ports import App
from service.settings import Settings


def work(app: App, settings: Settings) -> int:
    """Run until told to stop; the exit status."""
    # Our own logging stays (a receiver is what tells Celery to leave it); root is how containers run, and nothing here
    # is ever unpickled.
    setup_logging.connect(_leave_logging_alone)
    warnings.filterwarnings("ignore", category=SecurityWarning)
    celery = celery_app(settings.broker)
    for name in STEPS:
        celery.task(name=name)(_door(app, name))
    duties = Duties(app, settings.pace)
    worker = celery.Worker(
        pool="threads",
        concurrency=settings.broker.concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        optimization="fair",
    )
    try:
        worker.start()
    finally:
        duties.close()
    return int(worker.exitcode or 0)


def _leave_logging_alone(**_: object) -> None:
    """Celery would set the root logger's level and handlers."""


def _door(app: App, name: str) -> Callable[[str], None]:
    def door(key: str) -> None:
        step(app, name, key)

    return door
