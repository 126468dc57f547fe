"""What fell between commit and doorbell, found and done.

Every few seconds, under a lease: some of what has been due for longer than the takeover time (no broker, no worker, a
deaf one) is done right here; for more of what is due is rung again, unless rings enough wait to be heard: workers that
are behind would hear of each row many times, and be busy with that alone. Called by `service.duties`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from service import metrics
from service.errors import ServiceError
from service.flow.admit import admit
from service.flow.dead import bury
from service.flow.decide import decide, decide_again
from service.flow.promote import finish
from service.flow.record import record
from service.flow.retain import retain
from service.flow.submit import submit
from service.log import logger
from service.ports import App

PACED = 0.5  #: seconds between two looks at what a rate had put off
LIMIT = 200  #: rows of a kind in one sweep; the next one takes the rest
SHARE = 6  #: of the lease that each kind may take: a sweep that outlasts it would be another process's work, too


def sweep(app: App) -> None:
    """One pass over everything that is due."""
    now = app.clock.now()
    admit(app)
    _each(app, "events.decide", app.ledger.events.due, decide)
    _each(app, "decisions.ask", app.ledger.decisions.due, decide_again)
    _each(app, "runs.submit", app.ledger.queue.due, submit)
    with _apart("runs.record", ""):
        _record(app, now)
    for promotion_id in app.ledger.promotions.due(now, LIMIT):
        metrics.swept.labels(step="promotions.move").inc()
        with _apart("promotions.move", promotion_id):
            finish(app, promotion_id)
    with _apart("dead.bury", ""):
        bury(app)
    with _apart("retention", ""):
        retain(app)


def ring_paced(app: App) -> None:
    """Ring for what a backend's rate had put off and is due now: no faster, and no slower, than it allows.

    Called by `service.duties` every half second, in each process: a ring too many is lost by whoever claims later.
    """
    now = app.clock.now()
    for name, backend in app.backends.items():
        if backend.rate is not None:
            for key in app.ledger.queue.due(now, 1 + int(backend.rate.per_second * PACED), name):
                app.bell.ring("runs.submit", key)


def _record(app: App, now: datetime) -> None:
    """Younger ones are being recorded by the watch that saw them end."""
    young = timedelta(seconds=app.pace.takeover)
    for item in app.ledger.runs.unrecorded(now - timedelta(days=7), now - young):
        with _apart("runs.record", item.run_key):
            record(app, item)


@contextmanager
def _apart(step: str, key: str) -> Iterator[None]:
    """What goes wrong with one is no other's trouble; the next sweep finds it again."""
    try:
        yield
    except ServiceError as error:
        logger.warning("sweep_failed", step=step, key=key, detail=error.detail)
    except Exception:
        logger.exception("sweep_failed", step=step, key=key)


def _each(app: App, task: str, due: Callable[[datetime, int], Sequence[str]], step: Callable[[App, str], None]) -> None:
    now = app.clock.now()
    done: set[str] = set()
    for key in due(now - timedelta(seconds=app.pace.takeover), LIMIT):
        metrics.swept.labels(step=task).inc()
        logger.info("swept", step=task, key=key)
        with _apart(task, key):
            step(app, key)
        done.add(key)
        if app.clock.now() - now > timedelta(seconds=app.pace.lease / SHARE):
            break
    unheard = app.bell.waiting()
    for key in [key for key in due(now, LIMIT) if key not in done][: max(0, LIMIT - unheard)]:
        app.bell.ring(task, key)
