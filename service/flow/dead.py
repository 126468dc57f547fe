"""Dead letters: what stopped for good with a reason is tried again, or put away, as a person says.

Called by `kfp-triggers dead`; `bury` by the sweep, for what would else be tried for ever: an event or a decision on
which the service itself fails each time, by an error or by dying of it. Neither is in the way of its neighbours.
"""

from collections.abc import Sequence

from service import metrics
from service.errors import Permanent, ServiceError
from service.flow.receive import read, tell
from service.flow.retry import anew
from service.log import logger
from service.ports import App
from service.records import DeadLetter, Handling, Kind
from triggers.event import Event, Verdict
from triggers.reason import Reason

TRIES = 20  #: claims in a row that nobody let go of: with the default lease ten minutes


def bury(app: App) -> None:
    """Give up what was tried so often."""
    for key in app.ledger.dead.bury(app.clock.now(), TRIES):
        metrics.buried.inc()
        logger.error("buried", key=key, tries=TRIES)


def retry(app: App, found: DeadLetter, by: str, why: str) -> str:
    """Try it once more; what came of it, for a person. Permanent with what to do when it is dead still."""
    done = Handling(what=found.kind, key=found.key, action="retried", by=by, why=why, at=app.clock.now())
    if found.kind is Kind.RUN:
        item = app.ledger.runs.get(found.key)
        if item is None:
            raise Permanent(f"there is no run {found.key}")
        made = anew(app, item)
        app.ledger.dead.note(done)
        said = f"will be started anew, as generation {made.generation}"
    elif found.reason == Reason.POISON:
        if not app.ledger.dead.again(found, done):
            raise Permanent("is dead no more")
        app.bell.ring("events.decide" if found.kind is Kind.EVENT else "decisions.ask", found.key)
        said = "is decided again"
    else:
        said = _read_again(app, found, done)
    metrics.dead.labels(kind=found.kind, action="retried").inc()
    return said


def _read_again(app: App, found: DeadLetter, done: Handling) -> str:
    """By its source's present settings: its mapping may have been mended, or our reading."""
    delivery = app.ledger.dead.body(found.key)
    if delivery is None:
        raise Permanent("its body is no longer kept: it can only be discarded")
    source = app.rules.now().sources.get(delivery.source)
    if source is None:
        raise Permanent(f"there is no source {delivery.source} any more: put it back into sources.yaml, or discard it")
    _, reading = read(app, source, delivery)
    if said := _still(app, found, reading.events):
        raise Permanent(f"is not understood still: {said}")
    try:
        accepted = app.ledger.dead.read_again(found, reading, done)
    except ServiceError:
        raise
    except Exception as error:
        logger.exception("arrival_refused", source=source.name)
        raise Permanent("the store still fails on it: the log says where") from error
    if accepted is None:
        raise Permanent("is dead no more")
    tell(app, accepted, reading.events, source.name)
    new = list(accepted.new_event_ids)
    return f"was read again: {len(new)} new of {len(reading.events)} told" + (f", {' '.join(new)}" if new else "")


def _still(app: App, found: DeadLetter, events: Sequence[Event]) -> str:
    """Why it is not understood, "" when it is: another part of its delivery may be poison on its own account."""
    poison = [one for one in events if one.verdict is Verdict.QUARANTINED]
    item = app.ledger.events.get(found.key)
    mine = [one for one in poison if item is not None and one.identity == item.event.identity]
    if mine:
        return mine[0].detail
    return poison[0].detail if poison and len(poison) == len(events) else ""


def discard(app: App, found: DeadLetter, by: str, why: str) -> None:
    """Put it away: nothing is deleted, and it is dead no more."""
    done = Handling(what=found.kind, key=found.key, action="discarded", by=by, why=why, at=app.clock.now())
    if not app.ledger.dead.discard(found, done):
        raise Permanent("is dead no more")
    metrics.dead.labels(kind=found.kind, action="discarded").inc()
