"""Step 4: a ready run becomes one run in its backend, however often this is tried and wherever it is killed.

The intent is committed before the backend is asked and the id after it answered. Whenever the backend may have been
asked already, it is searched by run key first, after the time in which an unanswered request may still take effect.
A rule's runs on one subject are submitted in their order, and a backend is asked no faster than its rate allows: both
are `queue.begin`'s word. Called by `service.worker` (rung) and `service.flow.sweep` (found).
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from service import metrics
from service.errors import Permanent, ServiceError, Temporary
from service.failpoints import failpoint
from service.flow.admit import admit
from service.flow.job import document_of, job_of
from service.flow.mask import digest_of, without
from service.ledger import Claim
from service.lifecycle import State
from service.log import bound, logger
from service.ports import App, Backend, Job
from service.records import Double, RunRecord, Transition
from triggers.reason import Reason

FULL_AGAIN = timedelta(seconds=30)  #: how often a run that waits for room, or for its backend, looks by itself
TRIES = 10  #: unclear answers to one run, each followed by a search that found none, after which it is given up


@dataclass(frozen=True)
class _Try:
    """One try at one run, by whoever holds it."""

    app: App
    item: RunRecord  #: as it was before the claim: READY when it was never sent, SUBMITTING when it may have been
    backend: Backend
    taken: Claim


def submit(app: App, run_key: str) -> None:
    """Take the run if it is due and free; end with it submitted, waiting for another try, or dead."""
    item = app.ledger.runs.get(run_key)
    if item is None or item.state not in {State.READY, State.SUBMITTING}:
        return
    backend = app.backends.get(item.backend)
    if backend is None or _is_full(app, item, backend):
        why = Reason.BACKEND_BUSY.text if backend else f"no backend is named {item.backend}: name it in the settings"
        app.ledger.queue.postpone(item.run_key, item.state, app.clock.now() + FULL_AGAIN, why, holder="")
        return
    taken = app.claim()
    before = app.ledger.queue.begin(item, taken, backend.rate)
    if before is None:
        return
    failpoint("run.intent_written")
    with bound(event_id=item.event_id, rule=item.rule, run_key=run_key):
        _try(_Try(app, before, backend, taken))


def _is_full(app: App, item: RunRecord, backend: Backend) -> bool:
    """Whether it has no room for a run that is due: the end of another one hurries it along (`watch`)."""
    due = item.state is State.READY and item.due_at is not None and item.due_at <= app.clock.now()
    return due and not backend.has_room()


def _try(one: _Try) -> None:
    try:
        if one.item.state is State.SUBMITTING:
            _resolve(one)
        elif restored := _restored(one):
            _resolve(restored)
        else:
            _send(one)
    except Temporary as error:
        _not_now(one, error)
    except Permanent as error:
        _end(one.app, one.item, one.taken, Reason.BACKEND_REFUSED, error.detail)


def _send(one: _Try) -> None:
    """Ask the backend, unless this process slept so long that another may be at it already."""
    job = _prepared(one.app, one.item, one.backend)
    if job.secrets:  # noted before they are sent: whoever adopts the run must know what to look for in its words
        digest = digest_of(job.run_key, job.secrets)
        if not one.app.ledger.runs.gives(job.run_key, digest, holder=one.taken.holder):
            logger.warning("claim_lost", step="submit")
            return
    if one.app.clock.now() >= one.taken.until:
        logger.warning("claim_lost", step="submit")
        why = "what it refers to was looked up for too long"
        _move(one.app, one.item, one.taken, State.READY, Reason.BACKEND_BUSY, why, due_at=one.app.clock.now())
        return
    failpoint("run.before_post")
    try:
        backend_id = one.backend.create(job)
    except ServiceError as error:  # the server may repeat what it was sent
        error.detail = without(error.detail, job.secrets.values())
        raise
    failpoint("run.after_post")
    _submitted(one, backend_id, Reason.ACCEPTED)


def _resolve(one: _Try) -> None:
    """It may have been sent: adopt what is there; only sure absence lets it be sent again."""
    item, asked = one.item, one.item.submitted_at or one.item.created_at
    remaining = one.backend.settle - (one.taken.now - asked).total_seconds()
    if remaining > 0:
        _later(one, f"settling for another {remaining:.0f} s", remaining)
    elif found := one.backend.find(item.run_key):
        _submitted(one, found[0], Reason.ADOPTED)
        for other in found[1:]:
            found_double(one.app, replace(item, backend_id=found[0]), other)
    elif _was_absent(one) >= TRIES:
        _end(one.app, item, one.taken, Reason.GIVEN_UP, f"after {TRIES + 1} tries: {item.detail}")
    elif _move(one.app, item, one.taken, State.READY, Reason.ABSENT, item.detail, due_at=one.app.clock.now()):
        failpoint("run.absent")
        one.app.bell.ring("runs.submit", item.run_key)


def _restored(one: _Try) -> _Try | None:
    """The try as one that may have been sent: by the service itself, after the backup that was put back since."""
    notes = one.app.ledger.dead.notes("store", "")
    at = max((note.at for note in notes if note.action == "restored"), default=None)
    event = one.app.ledger.events.get(one.item.event_id) if at else None
    if at is None or event is None or event.received_at > at:
        return None
    looked = any(
        move.at >= at and move.reason is Reason.ABSENT for move in one.app.ledger.runs.transitions(one.item.run_key)
    )
    return None if looked else replace(one, item=replace(one.item, submitted_at=at))


def _was_absent(one: _Try) -> int:
    """How often it was sent already, with no clear answer, and was not there afterwards."""
    return sum(move.reason is Reason.ABSENT for move in one.app.ledger.runs.transitions(one.item.run_key))


def _prepared(app: App, item: RunRecord, backend: Backend) -> Job:
    """The job, once all that it refers to is in place. Nothing has been asked of the backend when this fails."""
    try:
        job = job_of(app, item, backend)
        if "event_uri" in item.params:
            app.objects.put(item.params["event_uri"], document_of(app, item))
    except Temporary as error:
        raise Temporary(error.detail, delay=error.delay, nothing_happened=True) from error
    return job


def _submitted(one: _Try, backend_id: str, reason: Reason) -> None:
    """The backend has it under this id; if another took the run over meanwhile, this may be the second one."""
    if _move(one.app, one.item, one.taken, State.SUBMITTED, reason, "", backend_id=backend_id):
        failpoint("run.id_stored")
        _tell(one.app, one.item, backend_id, reason)
        return
    now = one.app.ledger.runs.get(one.item.run_key)
    if now is not None and now.backend_id and now.backend_id != backend_id:
        found_double(one.app, now, backend_id)


def adopt(app: App, item: RunRecord, backend_id: str) -> None:
    """A look at the backend showed a run whose answer was lost. Called by `watch` with the row as it is now."""
    move = Transition(
        run_key=item.run_key,
        at=app.clock.now(),
        before=item.state,
        after=State.SUBMITTED,
        reason=Reason.ADOPTED,
        detail="",
    )
    if app.ledger.runs.move(move, holder="", backend_id=backend_id):
        failpoint("run.adopted")
        _tell(app, item, backend_id, Reason.ADOPTED)


def _tell(app: App, item: RunRecord, backend_id: str, reason: Reason) -> None:
    """Log and count; ring for the next one of its rule on its subject."""
    metrics.submissions.labels(backend=item.backend, outcome=reason).inc()
    seconds = (app.clock.now() - (item.submitted_at or item.created_at)).total_seconds()
    logger.info("run_submitted", backend=item.backend, backend_id=backend_id, reason=reason, seconds=round(seconds, 3))
    if reason is Reason.ADOPTED:
        metrics.adoption_seconds.labels(backend=item.backend).observe(seconds)
    ring_next(app, item)


def ring_next(app: App, item: RunRecord) -> None:
    """Tell a worker of the next run of its rule on its subject."""
    if after := app.ledger.queue.next_of(item):
        app.bell.ring("runs.submit", after)


def found_double(app: App, item: RunRecord, backend_id: str) -> None:
    """A second run under this key: noted and counted, and ended by the next watch."""
    found = Double(run_key=item.run_key, backend=item.backend, backend_id=backend_id, found_at=app.clock.now())
    if app.ledger.runs.double(found):
        logger.error("run_twice", backend=item.backend, backend_id=backend_id, kept=item.backend_id)


def _not_now(one: _Try, error: Temporary) -> None:
    """Surely not sent: ready again soon. Perhaps sent: stays as it is until the settle time is over."""
    metrics.submissions.labels(backend=one.item.backend, outcome="later").inc()
    if one.item.state is State.SUBMITTING:  # only the search failed: an earlier try may have been heard all the same
        _later(one, error.detail, error.delay)
    elif error.nothing_happened:
        due = one.app.clock.now() + timedelta(seconds=error.delay)
        _move(one.app, one.item, one.taken, State.READY, Reason.BACKEND_BUSY, error.detail, due_at=due)
    else:
        settle = one.backend.settle
        logger.warning("submission_unclear", backend=one.item.backend, detail=error.detail, settle=settle)
        _later(one, error.detail, max(settle, error.delay))


def _later(one: _Try, detail: str, seconds: float) -> None:
    due = one.app.clock.now() + timedelta(seconds=seconds)
    one.app.ledger.queue.postpone(one.item.run_key, State.SUBMITTING, due, detail, holder=one.taken.holder)


def _end(app: App, item: RunRecord, taken: Claim, reason: Reason, detail: str) -> None:
    if _move(app, item, taken, State.DEAD, reason, detail, error=detail, ended_at=app.clock.now()):
        failpoint("run.refused")
        metrics.submissions.labels(backend=item.backend, outcome="refused").inc()
        logger.error("run_refused", backend=item.backend, detail=detail)
        admit(app)
        ring_next(app, item)


def _move(app: App, item: RunRecord, taken: Claim, after: State, reason: Reason, detail: str, **changes: Any) -> bool:
    """One move by whoever holds the claim."""
    move = Transition(
        run_key=item.run_key,
        at=app.clock.now(),
        before=State.SUBMITTING,
        after=after,
        reason=reason,
        detail=detail,
    )
    return app.ledger.runs.move(move, holder=taken.holder, **changes)
