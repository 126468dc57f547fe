"""What fell between commit and doorbell, found and done.

Every few seconds, under a lease: work that has been due for less than the takeover time is rung again; what has waited
longer (no broker, no worker, a deaf one) is done right here. Called by `service.duties`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from service import metrics
from service.errors import ServiceError
from service.flow.admit import admit
from service.flow.decide import decide, decide_again
from service.flow.promote import finish
from service.flow.record import record
from service.flow.submit import submit
from service.log import logger
from service.ports import App

PACED = 0.5  #: seconds between two looks at what a rate had put off
LIMIT = 200  #: rows of a kind in one sweep; the next one takes the rest


def sweep(app: App) -> None:
    """One pass over everything that is due."""
    now = app.clock.now()
    admit(app)
    _each(app, "events.decide", app.ledger.events.due, decide)
    _each(app, "decisions.ask", app.ledger.decisions.due, decide_again)
    _each(app, "runs.submit", app.ledger.queue.due, submit)
    # Younger ones are being recorded by the watch that saw them end.
    young = timedelta(seconds=app.pace.takeover)
    for item in app.ledger.runs.unrecorded(now - timedelta(days=7), now - young):
        record(app, item)
    for promotion_id in app.ledger.promotions.due(now, LIMIT):
        metrics.swept.labels(step="promotions.move").inc()
        try:
            finish(app, promotion_id)
        except ServiceError as error:
            logger.warning("sweep_failed", step="promotions.move", key=promotion_id, detail=error.detail)


def ring_paced(app: App) -> None:
    """Ring for what a backend's rate had put off and is due now: no faster, and no slower, than it allows.

    Called by `service.duties` every half second, in each process: a ring too many is lost by whoever claims later.
    """
    now = app.clock.now()
    for name, backend in app.backends.items():
        if backend.rate is not None:
            for key in app.ledger.queue.due(now, 1 + int(backend.rate.per_second * PACED), name):
                app.bell.ring("runs.submit", key)


def _each(app: App, task: str, due: Callable[[datetime, int], Sequence[str]], step: Callable[[App, str], None]) -> None:
    now = app.clock.now()
    overdue = due(now - timedelta(seconds=app.pace.takeover), LIMIT)
    for key in overdue:
        metrics.swept.labels(step=task).inc()
        logger.info("swept", step=task, key=key)
        try:
            step(app, key)
        except ServiceError as error:
            logger.warning("sweep_failed", step=task, key=key, detail=error.detail)
    done = set(overdue)
    for key in due(now, LIMIT):
        if key not in done:
            app.bell.ring(task, key)
