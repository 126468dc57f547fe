"""Step 3b: runs that waited for a lock or for room are let go, and a worker is told of each.

Called wherever a slot may have become free: by a decision that asks for one, by every end of a run, by the sweep.
"""

from collections.abc import Iterable

from service.failpoints import failpoint
from service.ports import App


def admit(app: App) -> None:
    """Give the free slots of every lock to those who waited longest."""
    granted = app.ledger.queue.admit(app.clock.now())
    if granted:
        failpoint("lock.granted")
    _tell(app, granted)


def make_room(app: App, backend: str) -> None:
    """After a run's end in a backend: its lock's slot, and its place there."""
    admit(app)
    _tell(app, app.ledger.queue.hurry(backend, app.clock.now()))


def _tell(app: App, run_keys: Iterable[str]) -> None:
    for key in run_keys:
        app.bell.ring("runs.submit", key)
