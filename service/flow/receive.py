"""Step 1: bytes at the door become stored events.

Called by `service.web.hooks` with a delivery, by the CLI with an event of its own.
Verifies before it reads; what is authentic is kept, understood or not. Knows no HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service import metrics
from service.errors import ServiceError
from service.flow.moves import as_ours
from service.ledger import Arrival
from service.log import logger
from service.ports import App
from service.records import Accepted
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, Verdict, key_of
from triggers.reason import Reason
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


def receive(app: App, delivery: Delivery) -> Accepted:
    """Verify, read, store, ring. Raises NotAuthentic, or Temporary when it could not be stored."""
    source = app.rules.now().sources[delivery.source]
    kind = SOURCES[source.type]
    kind.verify(source.config, delivery, app.rules.secrets(source.name))
    try:
        reading = kind.read(source.config, delivery)
    except NotUnderstood as error:
        reading = quarantine(delivery, error.detail)
    except Exception:
        # A bug of ours must not become an answer for which the sender repeats it for ever: MinIO sends one at a time.
        logger.exception("source_failed", source=source.name)
        reading = quarantine(delivery, FAILED)
    events = [as_ours(app, _not_our_own(app, item)) for item in reading.events]
    headers = {name: text for name, text in delivery.headers.items() if name in KEPT_HEADERS}
    arrival = Arrival(delivery=delivery, headers=headers, reading=replace(reading, events=events))
    try:
        return store(app, arrival)
    except ServiceError:
        raise
    except Exception:
        logger.exception("arrival_refused", source=source.name)
        return store(app, replace(arrival, reading=quarantine(delivery, FAILED)))


def store(app: App, arrival: Arrival) -> Accepted:
    """Commit an arrival, then tell a worker of each event that is to be decided."""
    accepted = app.accept(arrival)
    source = arrival.delivery.source
    metrics.deliveries.labels(source=source, outcome="duplicate" if accepted.duplicate else "new").inc()
    _tell(app, accepted, arrival.reading.events, source)
    return accepted


def _tell(app: App, accepted: Accepted, events: Sequence[Event], source: str) -> None:
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
