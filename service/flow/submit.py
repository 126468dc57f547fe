"""Step 4: a ready run becomes one run in its backend, however often this is tried and wherever it is killed.

The intent is committed before the backend is asked and the id after it answered. Whenever the backend may have been
asked already, it is searched by run key first, after the time in which an unanswered request may still take effect.
Called by `service.worker` (rung) and `service.flow.sweep` (found).
"""

from datetime import timedelta
from typing import Any

from service import metrics
from service.errors import Permanent, Temporary
from service.flow.admit import admit
from service.ledger import Claim
from service.lifecycle import State
from service.log import bound, logger
from service.ports import App, Backend, Job, Pipeline
from service.records import RunRecord, Transition
from triggers.reason import Reason

FULL_AGAIN = timedelta(seconds=30)  #: how often a run that waits for room looks by itself


def submit(app: App, run_key: str) -> None:
    """Take the run if it is due and free; end with it submitted, waiting for another try, or dead."""
    item = app.ledger.runs.get(run_key)
    if item is None or item.state not in {State.READY, State.SUBMITTING}:
        return
    backend = app.backends.get(item.backend)
    if backend is not None and _put_off(app, item, backend):
        return
    taken = app.claim()
    before = app.ledger.runs.begin(item, taken)
    if before is None:
        return
    with bound(event_id=item.event_id, rule=item.rule, run_key=run_key):
        if backend is None:
            _end(app, item, Reason.BACKEND_REFUSED, f"no backend is named {item.backend}")
            return
        _try(app, before, backend, taken)


def _put_off(app: App, item: RunRecord, backend: Backend) -> bool:
    """Leave a run be while its backend is full: the end of another one hurries it along (`watch`)."""
    now = app.clock.now()
    if item.state is not State.READY or item.due_at is None or item.due_at > now or backend.has_room():
        return False
    app.ledger.runs.postpone(item.run_key, State.READY, now + FULL_AGAIN, Reason.BACKEND_BUSY.text)
    return True


def _try(app: App, before: RunRecord, backend: Backend, taken: Claim) -> None:
    try:
        if before.state is State.SUBMITTING:
            _resolve(app, before, backend, taken)
        else:
            _send(app, before, backend, taken)
    except Temporary as error:
        _not_now(app, before, backend, error)
    except Permanent as error:
        _end(app, before, Reason.BACKEND_REFUSED, error.detail)


def _send(app: App, before: RunRecord, backend: Backend, taken: Claim) -> None:
    """Ask the backend, unless this process slept so long that another may be at it already."""
    job = _job(before, backend)
    if app.clock.now() >= taken.until:
        logger.warning("claim_lost", step="submit")
        return
    _submitted(app, before, backend.create(job), Reason.ACCEPTED)


def _resolve(app: App, before: RunRecord, backend: Backend, taken: Claim) -> None:
    """It may have been sent: adopt what is there; only sure absence lets it be sent again."""
    asked = before.submitted_at or before.created_at
    remaining = backend.settle - (taken.now - asked).total_seconds()
    if remaining > 0:
        _later(app, before, f"settling for another {remaining:.0f} s", remaining)
    elif found := backend.find(before.run_key):
        _submitted(app, before, found, Reason.ADOPTED)
    elif _move(app, before, State.READY, Reason.ABSENT, "", due_at=app.clock.now()):
        app.bell.ring("runs.submit", before.run_key)


def _job(item: RunRecord, backend: Backend) -> Job:
    pipeline: Pipeline = backend.pipeline(f"{item.pipeline}@{item.pipeline_version}")
    if pipeline.digest != item.pipeline_digest:
        raise Permanent(
            f"{pipeline.reference} is not what it was when the run was decided: same name with other content"
        )
    return Job(
        run_key=item.run_key,
        display_name=item.display_name,
        description=item.description,
        pipeline=pipeline,
        params=item.params,
        experiment=item.experiment,
        time_limit=item.time_limit,
    )


def _submitted(app: App, item: RunRecord, backend_id: str, reason: Reason) -> None:
    if _move(app, item, State.SUBMITTED, reason, "", backend_id=backend_id):
        metrics.submissions.labels(backend=item.backend, outcome=reason).inc()
        logger.info("run_submitted", backend=item.backend, backend_id=backend_id, reason=reason)


def _not_now(app: App, item: RunRecord, backend: Backend, error: Temporary) -> None:
    """Surely not sent: ready again soon. Perhaps sent: stays as it is until the settle time is over."""
    metrics.submissions.labels(backend=item.backend, outcome="later").inc()
    if error.nothing_happened:
        due = app.clock.now() + timedelta(seconds=error.delay)
        _move(app, item, State.READY, Reason.BACKEND_BUSY, error.detail, due_at=due)
    else:
        logger.warning("submission_unclear", backend=item.backend, detail=error.detail, settle=backend.settle)
        _later(app, item, error.detail, max(backend.settle, error.delay))


def _later(app: App, item: RunRecord, detail: str, seconds: float) -> None:
    due = app.clock.now() + timedelta(seconds=seconds)
    app.ledger.runs.postpone(item.run_key, State.SUBMITTING, due, detail)


def _end(app: App, item: RunRecord, reason: Reason, detail: str) -> None:
    if _move(app, item, State.DEAD, reason, detail, error=detail, ended_at=app.clock.now()):
        metrics.submissions.labels(backend=item.backend, outcome="refused").inc()
        logger.error("run_refused", backend=item.backend, detail=detail)
        admit(app)


def _move(app: App, item: RunRecord, after: State, reason: Reason, detail: str, **changes: Any) -> bool:
    move = Transition(
        run_key=item.run_key,
        at=app.clock.now(),
        before=State.SUBMITTING,
        after=after,
        reason=reason,
        detail=detail,
    )
    return app.ledger.runs.move(move, **changes)
