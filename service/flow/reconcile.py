"""The scan: objects that are there and that no notification told of become the events that it would have made.

Called by `service.duties` for every bucket of a source of type minio, and by `kfp-triggers reconcile` for one. What it
finds comes in by the same door as a notification, with the same identity: who tells of it too, then or later, tells of
the same event. Times are the object store's, whose clock stamps the objects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.errors import Permanent, ServiceError
from service.flow.receive import FAILED, read, store
from service.ledger import Arrival, Claim
from service.log import logger
from service.ports import App, ObjectInfo, Objects
from service.records import Accepted, Scan
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event
from triggers.sourcefile import Source
from triggers.sources import minio

RECONCILE = "reconcile"  #: the duty's name, its lease's, and the transport of what it delivers
BATCH = 100  #: events in one delivery, which is one transaction: senders wait for no more than that
#: So far behind the mark is looked again, as some stores stamp an object when its upload began. All of it is known.
OVERLAP = timedelta(days=1)
AGAIN = timedelta(seconds=60)  #: until a bucket that could not be looked through is tried again, at most


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is looked through: objects stamped after `since` and until `until`."""

    source: Source
    bucket: str
    prefix: str
    since: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of a listing: how many objects it has, how many of them may still be told of, and what nobody told of."""

    seen: int
    young: int
    new: Sequence[ObjectInfo]


def reconcile(app: App) -> None:
    """Look through each bucket whose turn it is, as long as the lease is ours."""
    known = {(one.source, one.bucket): one for one in app.ledger.scans.list()}
    for source, config in scanned(app):
        for bucket in config.buckets:
            row = known.get((source.name, bucket))
            if config.scan is None:
                if row is not None:
                    app.ledger.scans.drop(source.name, bucket)
            elif _is_due(row, config.scan.every, app.clock.now()) and _is_wanted(app, config, bucket):
                if not _hold(app):
                    return
                _look(app, source, row or _first_look(app, source.name, bucket), config.scan.prefix)


def scanned(app: App) -> Sequence[tuple[Source, minio.Config]]:
    """The sources that have buckets, with their settings."""
    sources = app.rules.now().sources.values()
    return [(source, source.config) for source in sources if isinstance(source.config, minio.Config)]


def is_on(config: minio.Config, objects: Objects) -> bool:
    """Without an object store only if the file asks for it: then it is a problem to be told."""
    return config.scan is not None and (objects.is_there() or "scan" in config.model_fields_set)


def going_on(app: App, row: Scan) -> datetime:
    """Since when a scan of now looks. Never at what is older than our memory of it: its key may have been pruned."""
    return max(row.since, row.mark - OVERLAP, app.clock.now() - app.retention.keys)


def until(app: App) -> datetime:
    """How young an object may be: of younger ones a notification may be on its way."""
    return app.objects.now() - timedelta(seconds=app.pace.notice)


def pages(app: App, scope: Scope) -> Iterator[Page]:
    """Page by page; one look into the store for each."""
    for page in app.objects.listed(scope.bucket, scope.prefix):
        late = [one for one in page if one.last_modified > scope.since]
        told = {
            event.identity: (event, one) for one in late if one.last_modified <= scope.until if (event := _event(one))
        }
        known = app.ledger.scans.known(scope.source.name, [event for event, _ in told.values()]) if told else ()
        new = [one for identity, (_, one) in told.items() if identity not in known]
        yield Page(seen=len(page), young=sum(one.last_modified > scope.until for one in late), new=new)


def _is_wanted(app: App, config: minio.Config, bucket: str) -> bool:
    """Never our own bucket."""
    return is_on(config, app.objects) and bucket != app.own_bucket


def event_of_object(found: ObjectInfo) -> Event:
    """The event that the object's notification would have made. NotUnderstood for a key that cannot be kept."""
    bucket, _, key = found.uri.removeprefix("s3://").partition("/")
    return minio.object_event(
        bucket=bucket,
        key=key,
        etag=found.etag,
        version_id=found.version_id,
        size=found.size,
        last_modified=found.last_modified,
        content_type=found.content_type,
        metadata=found.metadata,
    )


def described(app: App, found: Sequence[ObjectInfo]) -> Sequence[Event]:
    """Their events, with what a listing does not tell; without those that are gone or written over by now."""
    return [event for one in found if (event := _described(app, one))]


def take_in(app: App, source: Source, found: Sequence[Event]) -> Accepted:
    """Store them as the delivery that should have come."""
    body, now = minio.told_anew(found), app.clock.now()
    delivery = Delivery(source=source.name, headers={"content-type": "application/json"}, body=body, received_at=now)
    kept, reading = read(app, source, delivery)
    return store(app, Arrival(delivery=kept, headers={"transport": RECONCILE}, reading=reading))


def batches(found: Sequence[ObjectInfo]) -> Iterator[Sequence[ObjectInfo]]:
    """In pieces of what one transaction takes."""
    return (found[start : start + BATCH] for start in range(0, len(found), BATCH))


def _is_due(before: Scan | None, every: timedelta, now: datetime) -> bool:
    if before is None or before.looked_at is None:
        return True
    return before.looked_at + (min(every, AGAIN) if before.problem else every) <= now


def _hold(app: App) -> bool:
    """Prolong the lease that the duty was begun under; False when another process has it now."""
    now = app.clock.now()
    until = now + timedelta(seconds=app.pace.lease)
    return app.ledger.leases.take(RECONCILE, Claim(holder=app.holder, now=now, until=until))


def _first_look(app: App, source: str, bucket: str) -> Scan:
    """The bucket's new row. What lay there before is history, and no event."""
    try:
        at = app.objects.now()
    except ServiceError:
        at = app.clock.now()
    logger.info("scan_begins", source=source, bucket=bucket, since=at.isoformat())
    return app.ledger.scans.begin(source, bucket, at)


def _look(app: App, source: Source, row: Scan, prefix: str) -> None:
    """Once through a bucket; what goes wrong with it is no other's trouble."""
    began, tally, mark = app.clock.now(), _Tally(), row.mark
    try:
        mark = until(app)
        scope = Scope(source=source, bucket=row.bucket, prefix=prefix, since=going_on(app, row), until=mark)
        if not _walk(app, scope, tally):
            return
    except ServiceError as error:
        tally.problem = error.detail
    except Exception:
        logger.exception("scan_failed", source=source.name, bucket=row.bucket)
        tally.problem = FAILED
    now = app.clock.now()
    done = replace(row, looked_at=now, found=row.found + tally.found, problem=tally.problem)
    if not tally.problem:
        done = replace(done, mark=mark, ended_at=now, seconds=(now - began).total_seconds(), seen=tally.seen)
    elif tally.problem != row.problem:
        logger.warning("bucket_not_scanned", source=source.name, bucket=row.bucket, detail=tally.problem)
    app.ledger.scans.end(done)


@dataclass
class _Tally:
    """What a look came to so far."""

    seen: int = 0
    found: int = 0
    problem: str = ""


def _walk(app: App, scope: Scope, tally: _Tally) -> bool:
    """All pages; False when the lease is another's now."""
    for page in pages(app, scope):
        tally.seen += page.seen
        for batch in batches(page.new):
            _tell(app, scope.source, batch, tally)
            if not _hold(app):
                return False
        if not _hold(app):
            return False
    return True


def _tell(app: App, source: Source, batch: Sequence[ObjectInfo], tally: _Tally) -> None:
    """What we choke on is in nobody's way: the rest of the bucket is gone through all the same."""
    try:
        if events := described(app, batch):
            found = take_in(app, source, events).new_event_ids
            tally.found += len(found)
            logger.info("untold_objects_found", source=source.name, events=len(found))
    except ServiceError:
        raise
    except Exception:
        logger.exception("scan_failed", source=source.name)
        tally.problem = FAILED


def _event(found: ObjectInfo) -> Event | None:
    """None for a key that cannot be kept; its notification would be quarantined."""
    try:
        return event_of_object(found)
    except NotUnderstood:
        return None


def _described(app: App, found: ObjectInfo) -> Event | None:
    try:
        there = app.objects.stat(found.uri, found.version_id)
    except Permanent:
        return None
    if there.etag != found.etag:
        return None
    return _event(replace(found, content_type=there.content_type, metadata=there.metadata))
