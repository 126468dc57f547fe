"""Step 5: what became of the runs that a backend has, asked in bulk; and the ends that people asked for.

A look also shows runs that nobody asked about: an answer that was lost, a second run under one key, a run that was
retried in the backend's own pages. `other` deals with them. Called by `service.duties` by the clock, in a thread for
each backend: a dead one holds up no other.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from service import metrics
from service.errors import ServiceError
from service.failpoints import failpoint
from service.flow.admit import make_room
from service.flow.cancel import GIVE_UP, ToEnd, cancel_here, cancel_there
from service.flow.mask import observed_without
from service.flow.record import record
from service.flow.submit import adopt, found_double
from service.lifecycle import MOVES, TERMINAL, State
from service.log import bound, logger
from service.ports import App, Observed, Sighting
from service.records import OpenRun, RunRecord, Transition
from triggers.reason import Reason

PATIENCE = 5.0  #: seconds that one backend may keep the looks at the others from beginning anew


def watch(app: App) -> None:
    """One look at every backend, each in a thread of its own; one that hangs is left to itself."""
    open_runs: dict[str, list[OpenRun]] = {name: [] for name in app.backends}
    for item in app.ledger.runs.in_backends():
        open_runs.setdefault(item.backend, []).append(item)
    to_end = cancel_here(app)
    awaited = app.ledger.runs.awaited()
    threads = [
        threading.Thread(
            target=_visit, args=(app, name, items, to_end, name in awaited), name=f"watch {name}", daemon=True
        )
        for name, items in open_runs.items()
        if name in app.backends
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


def _visit(app: App, name: str, items: Sequence[OpenRun], to_end: Sequence[ToEnd], awaited: bool) -> None:
    try:
        cancel_there(app, name, to_end)
        look = app.backends[name].observe([item.backend_id for item in items], awaited=awaited)
    except ServiceError as error:
        logger.warning("backend_unavailable", backend=name, detail=error.detail)
        return
    except Exception:
        logger.exception("watch_failed", backend=name)
        return
    for item in items:
        if (observed := look.seen.get(item.backend_id)) is not None:
            _alone(item.run_key, partial(_see, app, item, observed))
    for sighting in look.others:
        _alone(sighting.run_key, partial(other, app, name, sighting))


def _alone(run_key: str, do: Callable[[], object]) -> None:
    """What goes wrong with one run is no other's trouble."""
    try:
        do()
    except ServiceError as error:
        logger.warning("run_not_followed", run_key=run_key, detail=error.detail)
    except Exception:
        logger.exception("run_not_followed", run_key=run_key)


def _see(app: App, one: OpenRun, observed: Observed) -> None:
    """A backend may say that a run that was running is pending again, as after a retry: that is no move."""
    late = one.cancel_asked_at is None and _overdue(app, one)
    if observed.state not in MOVES[one.state] and not late and not _is_ending(app, one):
        return
    item = app.ledger.runs.get(one.run_key)
    if item is None or item.state is not one.state:  # somebody was faster
        return
    with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
        if observed.state in MOVES[item.state]:
            arrive(app, item, _as_asked(item, observed))
        elif _is_ending(app, item):
            _give_up(app, item)
        elif late:
            logger.warning("run_over_time_limit", seconds=item.time_limit)
            app.ledger.runs.ask_to_cancel(item.run_key, app.clock.now(), Reason.TIME_LIMIT)


def _as_asked(item: RunRecord, observed: Observed) -> Observed:
    """KFP ends a terminated run as FAILED, and does not always say in its history that it was terminated."""
    if observed.state is not State.FAILED or item.cancel_sent_at is None:
        return observed
    before = observed.ended_at is not None and observed.ended_at < item.cancel_sent_at - timedelta(seconds=2)
    return observed if before else replace(observed, state=State.CANCELLED)


def _overdue(app: App, item: OpenRun) -> bool:
    """A backend may have its own limit; this is for one that has none or does not keep it."""
    since = item.submitted_at or item.created_at
    return (app.clock.now() - since).total_seconds() > item.time_limit + 60


def _is_ending(app: App, item: OpenRun | RunRecord) -> bool:
    """Whether its backend was told to end it so long ago that it never will, as where nothing moves a run on."""
    return item.cancel_sent_at is not None and app.clock.now() - item.cancel_sent_at > GIVE_UP


def _give_up(app: App, item: RunRecord) -> None:
    limit = f"ran longer than its time limit of {item.time_limit:.0f} s"
    why = limit if item.cancel_reason == Reason.TIME_LIMIT else "was cancelled"
    state = State.FAILED if item.cancel_reason == Reason.TIME_LIMIT else State.CANCELLED
    seen = Observed(state=state, error=f"{why}, and its backend did not end it", ended_at=app.clock.now())
    arrive(app, item, seen, Reason.NOT_ENDED)


def other(app: App, backend: str, sighting: Sighting) -> None:
    """A run that the backend has and that was not asked about."""
    item = app.ledger.runs.get(sighting.run_key)
    if item is None or item.backend != backend or item.display_name != sighting.display_name:  # somebody else's
        return
    with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
        if item.state in {State.READY, State.SUBMITTING} and not item.holder:
            # Its answer was lost, or came too late. While somebody holds it, that one is about to hear of it.
            adopt(app, item, sighting.backend_id)
        elif item.backend_id != sighting.backend_id and (item.backend_id or item.state in TERMINAL):
            found_double(app, item, sighting.backend_id)
        elif _runs_again(item, sighting.observed):
            revive(app, item, Reason.REVIVED, "")


def _runs_again(item: RunRecord, observed: Observed) -> bool:
    """Whether a run that had ended was taken up again in its backend; maybe it has ended again since."""
    if item.state not in {State.FAILED, State.CANCELLED} or item.reason == Reason.NOT_ENDED:
        return False
    if observed.state not in {State.FAILED, State.CANCELLED}:
        return True
    return bool(item.ended_at and observed.ended_at and observed.ended_at > item.ended_at)


def revive(app: App, item: RunRecord, reason: Reason, detail: str) -> bool:
    """An ended run runs again under its id. Also called by `retry`."""
    move = Transition(
        run_key=item.run_key, at=app.clock.now(), before=item.state, after=State.RUNNING, reason=reason, detail=detail
    )
    revived = app.ledger.runs.revive(move)
    if revived:
        failpoint("run.revived")
        logger.info("run_revived", reason=reason, backend=item.backend)
    return revived


def arrive(app: App, item: RunRecord, observed: Observed, reason: Reason | None = None) -> None:
    """Move a run to where its backend says it is; at its end, free its lock and record its lineage."""
    observed = observed_without(app, item, observed)
    if item.state is State.SUBMITTED and observed.state is not State.RUNNING and observed.started_at:
        # It was seen only after its end: the history shows that it ran all the same.
        _move(app, item, replace(observed, state=State.RUNNING, error=""))
        item = replace(item, state=State.RUNNING)
    if not _move(app, item, observed, reason):
        return
    failpoint("run.watched")
    if observed.state not in TERMINAL:
        return
    failpoint("run.ended")
    metrics.runs_ended.labels(rule=item.rule, state=observed.state).inc()
    logger.info("run_ended", state=observed.state, error=observed.error)
    make_room(app, item.backend)
    if (ended := app.ledger.runs.get(item.run_key)) is not None:
        record(app, ended)


def _move(app: App, item: RunRecord, observed: Observed, reason: Reason | None = None) -> bool:
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
        reason=reason or _reason(item, observed),
        detail=error,
    )
    return app.ledger.runs.move(move, **changes)


def _reason(item: RunRecord, observed: Observed) -> Reason:
    if observed.state is State.CANCELLED and item.cancel_asked_at:
        return Reason.TIME_LIMIT if item.cancel_reason == Reason.TIME_LIMIT else Reason.CANCEL_ASKED
    if observed.state is State.GONE:
        return Reason.VANISHED
    return Reason.INTERRUPTED if observed.interrupted else Reason.OBSERVED_STATE
