"""The ends that people, and time limits, asked for: here at once, or told to the backend until it does it.

Called by `service.flow.watch` before it looks.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from service import metrics
from service.errors import Permanent, Temporary
from service.failpoints import failpoint
from service.flow.admit import admit
from service.flow.submit import ring_next
from service.lifecycle import IN_BACKEND, State
from service.log import bound, logger
from service.ports import App
from service.records import Double, RunRecord, Transition
from triggers.reason import Reason

ASK_AGAIN = timedelta(seconds=60)  #: how often a backend is told again to end a run that does not end
GIVE_UP = timedelta(minutes=10)  #: after it was told: its lock is let go of though its backend goes on

ToEnd = RunRecord | Double  #: what a backend is to be told


def cancel_here(app: App) -> Sequence[ToEnd]:
    """End what no backend has; the rest is for the backends to be told."""
    now, to_end = app.clock.now(), list[ToEnd](app.ledger.runs.doubles(open_only=True))
    for item in app.ledger.runs.to_cancel():
        asked = item.cancel_asked_at or now
        if item.state in {State.WAITING, State.READY}:
            _end(app, item, Reason.CANCEL_ASKED, "before its backend had it")
        elif item.state in IN_BACKEND and item.backend not in app.backends and now - asked > GIVE_UP:
            _end(app, item, Reason.NOT_ENDED, f"no backend is named {item.backend}: it may still run there")
        elif item.state in IN_BACKEND and (item.cancel_told_at is None or now - item.cancel_told_at > ASK_AGAIN):
            to_end.append(item)
    return to_end


def cancel_there(app: App, backend: str, to_end: Sequence[ToEnd]) -> None:
    """Tell a backend which of its runs are to end; when it does not answer, the others wait for the next time."""
    for one in to_end:
        if one.backend != backend:
            continue
        try:
            app.backends[backend].cancel(one.backend_id)
        except Temporary as error:
            logger.warning("cancel_failed", backend=backend, detail=error.detail)
            return
        except Permanent as error:  # told, and refused: asked again in a while, and given up in the end
            logger.error("cancel_refused", backend=backend, run_key=one.run_key, detail=error.detail)
        failpoint("run.cancel_told")
        if isinstance(one, Double):
            app.ledger.runs.double_cancelled(one, app.clock.now())
        else:
            app.ledger.runs.cancel_sent(one.run_key, app.clock.now())


def _end(app: App, item: RunRecord, reason: Reason, detail: str) -> None:
    now: datetime = app.clock.now()
    move = Transition(
        run_key=item.run_key, at=now, before=item.state, after=State.CANCELLED, reason=reason, detail=detail
    )
    with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
        if app.ledger.runs.move(move, ended_at=now):
            failpoint("run.cancelled")
            metrics.runs_ended.labels(rule=item.rule, state=State.CANCELLED).inc()
            logger.info("run_ended", state=State.CANCELLED, error="")
            admit(app)
            ring_next(app, item)
