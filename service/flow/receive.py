"""Step 1: bytes at the door become stored events.

Called by `service.web.hooks` with a delivery, by the CLI with an event of its own.
Verifies before it reads; what is authentic is kept, understood or not. Knows no HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service import metrics
from service.errors import ServiceError
from service.failpoints import failpoint
from service.flow.moves import as_ours
from service.ledger import Arrival
from service.log import logger
from service.ports import App
from service.records import Accepted
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, Verdict, key_of
from triggers.reason import Reason
from triggers.redaction import redact
from triggers.sourcefile import Source
from triggers.sources import SOURCES

# What of a request is worth keeping beside its body. Nothing that carries a credential is on the list.
KEPT_HEADERS = frozenset(
    {
        "content-type",
        "idempotency-key",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "x-github-delivery",
        "x-github-event",
        "x-github-hook-id",
        "x-gitlab-event",
        "x-gitlab-event-uuid",
        "x-gitlab-instance",
        "x-mlflow-delivery-id",
        "x-mlflow-timestamp",
    }
)

FAILED = "the service failed on it: its log says where"
NEEDED = "what its source redacts is needed to read it: take it off the source's `redact`, and send it again"


def receive(app: App, delivery: Delivery) -> Accepted:
    """Verify, read, store, ring. Raises NotAuthentic, or Temporary when it could not be stored."""
    source = app.rules.now().sources[delivery.source]
    as_signed = replace(delivery, received_at=app.clock.wall())
    SOURCES[source.type].verify(source.config, as_signed, app.rules.secrets(source.name))
    kept, reading = read(app, source, delivery)
    headers = {name: text for name, text in kept.headers.items() if name in KEPT_HEADERS}
    arrival = Arrival(delivery=kept, headers=headers, reading=reading)
    try:
        return store(app, arrival)
    except ServiceError:
        raise
    except Exception:
        logger.exception("arrival_refused", source=source.name)
        return store(app, replace(arrival, reading=quarantine(delivery, FAILED)))


def read(app: App, source: Source, delivery: Delivery) -> tuple[Delivery, Reading]:
    """What may be kept of a delivery, and what it tells. Called by `dead` again, with what was kept."""
    reading = _read(source, delivery)
    events: Sequence[Event] = [_not_our_own(app, item) for item in reading.events]
    kept = delivery
    if source.redact:
        kept = redact(delivery, source.redact)
        events = _without(source, delivery, kept, events)
    return kept, replace(reading, events=[as_ours(app, item) for item in events])


def _read(source: Source, delivery: Delivery) -> Reading:
    try:
        return SOURCES[source.type].read(source.config, delivery)
    except NotUnderstood as error:
        return quarantine(delivery, error.detail)
    except Exception:
        # A bug of ours must not become an answer for which the sender repeats it for ever: MinIO sends one at a time.
        logger.exception("source_failed", source=source.name)
        return quarantine(delivery, FAILED)


def _without(source: Source, delivery: Delivery, kept: Delivery, told: Sequence[Event]) -> Sequence[Event]:
    """The events as what is kept tells them, known by what was sent."""
    seen = _read(source, kept).events if kept.body else ()
    if [(one.type, _poison(one)) for one in seen] == [(one.type, _poison(one)) for one in told]:
        return [_known_by(one, two) for one, two in zip(seen, told, strict=True)]
    if all(one.verdict is not Verdict.ACCEPTED for one in told):
        return [replace(one, subject=source.name) for one in told]
    return quarantine(delivery, NEEDED).events


def _poison(item: Event) -> bool:
    return item.verdict is Verdict.QUARANTINED


def _known_by(seen: Event, told: Event) -> Event:
    """A ref or a commit that is redacted is known by its hash."""
    same = (seen.stream, seen.position) == (told.stream, told.position)
    return replace(
        seen,
        identity=told.identity,
        stream=told.stream if same else key_of(told.stream),
        position=told.position if same else key_of(told.position),
        verdict=told.verdict,
        reason=told.reason,
        detail=told.detail,
    )


def store(app: App, arrival: Arrival) -> Accepted:
    """Commit an arrival, then tell a worker of each event that is to be decided."""
    accepted = app.accept(arrival)
    failpoint("event.stored")
    source = arrival.delivery.source
    metrics.deliveries.labels(source=source, outcome="duplicate" if accepted.duplicate else "new").inc()
    tell(app, accepted, arrival.reading.events, source)
    return accepted


def tell(app: App, accepted: Accepted, events: Sequence[Event], source: str) -> None:
    """Count what is new, and ring for what is to be decided."""
    new = set(accepted.new_event_ids)
    for event_id, item in zip(accepted.event_ids, events, strict=False):
        if event_id not in new:
            continue
        metrics.events.labels(source=source, type=item.type, verdict=item.verdict).inc()
        logger.info("event_stored", event_id=event_id, source=source, type=item.type, verdict=item.verdict)
        if item.verdict is Verdict.ACCEPTED:
            app.bell.ring("events.decide", event_id)


def quarantine(delivery: Delivery, detail: str) -> Reading:
    """A reading for an authentic delivery that its source does not understand: kept, shown, never answered with 4xx."""
    key = key_of(delivery.source, delivery.body)
    unknown = Event(
        type="unknown",
        subject=delivery.source,
        time=delivery.received_at,
        data={},
        identity=key,
        verdict=Verdict.QUARANTINED,
        reason=Reason.NOT_UNDERSTOOD,
        detail=detail,
    )
    return Reading(transport_key=key, events=(unknown,))


def _not_our_own(app: App, item: Event) -> Event:
    """Reports and manifests lie in our own bucket and are never events: a rule on them would feed itself."""
    data: Mapping[str, object] = item.data
    if item.verdict is Verdict.ACCEPTED and item.type.startswith("object.") and data.get("bucket") == app.own_bucket:
        return replace(item, verdict=Verdict.IGNORED, reason=Reason.NOT_FOR_US, detail="in the service's own bucket")
    return item
