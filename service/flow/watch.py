"""Step 5: what became of the runs that a backend has, asked in bulk; and the ends that people asked for.

Called by `service.duties` by the clock. One dead backend holds up no other.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service import metrics
from service.errors import ServiceError
from service.flow.admit import admit, make_room
from service.flow.record import record
from service.ledger import Ledger
from service.lifecycle import IN_BACKEND, TERMINAL, State
from service.log import bound, logger
from service.ports import App, Backend, Observed
from service.records import RunRecord, Transition
from triggers.reason import Reason


def watch(app: App) -> None:
    """One look at every open run."""
    _cancel_what_was_asked(app)
    by_backend: dict[str, list[RunRecord]] = defaultdict(list)
    for item in app.ledger.runs.in_backends():
        by_backend[item.backend].append(item)
    for name, items in by_backend.items():
        backend = app.backends.get(name)
        if backend is None:
            continue
        try:
            _look(app, backend, items)
        except ServiceError as error:
            logger.warning("backend_unavailable", backend=name, detail=error.detail)


def _look(app: App, backend: Backend, items: Sequence[RunRecord]) -> None:
    seen = backend.observe([item.backend_id for item in items])
    for item in items:
        observed = seen.get(item.backend_id)
        if observed is None:
            continue
        with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
            if observed.state is not item.state:
                arrive(app, item, observed)
            elif _overdue(app, item):
                logger.warning("run_over_time_limit", seconds=item.time_limit)
                app.ledger.runs.ask_to_cancel(item.run_key, app.clock.now())


def _overdue(app: App, item: RunRecord) -> bool:
    """The backend has its own limit; this is for one that does not keep it."""
    since = item.submitted_at or item.created_at
    return (app.clock.now() - since).total_seconds() > item.time_limit + 60


def arrive(app: App, item: RunRecord, observed: Observed) -> None:
    """Move a run to where its backend says it is; at its end, free its lock and record its lineage."""
    if item.state is State.SUBMITTED and observed.state is not State.RUNNING and observed.started_at:
        # It was seen only after its end: the history shows that it ran all the same.
        _move(app.ledger, app, item, replace(observed, state=State.RUNNING, error=""))
        item = replace(item, state=State.RUNNING)
    if not _move(app.ledger, app, item, observed) or observed.state not in TERMINAL:
        return
    metrics.runs_ended.labels(rule=item.rule, state=observed.state).inc()
    logger.info("run_ended", state=observed.state, error=observed.error)
    make_room(app, item.backend)
    if (ended := app.ledger.runs.get(item.run_key)) is not None:
        record(app, ended)


def _move(ledger: Ledger, app: App, item: RunRecord, observed: Observed) -> bool:
    now = app.clock.now()
    changes: dict[str, Any] = {"started_at": observed.started_at or item.started_at or now}
    error = observed.error.encode("utf-8", "replace").decode()  # what a run printed may be any bytes
    if observed.state in TERMINAL:
        changes |= {"ended_at": observed.ended_at or now, "error": error, "failed_task": observed.failed_task}
        changes |= {"outputs": dict(observed.outputs)}
    move = Transition(
        run_key=item.run_key,
        at=now,
        before=item.state,
        after=observed.state,
        reason=_reason(item, observed),
        detail=error,
    )
    return ledger.runs.move(move, **changes)


def _reason(item: RunRecord, observed: Observed) -> Reason:
    if observed.state is State.CANCELLED and item.cancel_asked_at:
        return Reason.CANCEL_ASKED
    if observed.state is State.GONE:
        return Reason.VANISHED
    return Reason.INTERRUPTED if observed.interrupted else Reason.OBSERVED_STATE


def _cancel_what_was_asked(app: App) -> None:
    for item in app.ledger.runs.to_cancel():
        with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
            if item.state in {State.WAITING, State.READY}:
                _cancel_here(app, item)
            elif item.state in IN_BACKEND and item.backend in app.backends:
                try:
                    app.backends[item.backend].cancel(item.backend_id)
                except ServiceError as error:
                    logger.warning("cancel_failed", backend=item.backend, detail=error.detail)


def _cancel_here(app: App, item: RunRecord) -> None:
    now = app.clock.now()
    move = Transition(
        run_key=item.run_key,
        at=now,
        before=item.state,
        after=State.CANCELLED,
        reason=Reason.CANCEL_ASKED,
        detail="before its backend had it",
    )
    if app.ledger.runs.move(move, ended_at=now):
        metrics.runs_ended.labels(rule=item.rule, state=State.CANCELLED).inc()
        logger.info("run_ended", state=State.CANCELLED, error="")
        admit(app)
