"""MinIO bucket notifications, and every store that sends the same records (RustFS, Ceph, AWS).

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html, with MinIO's own rules from
minio/minio@7aac2a2 `cmd/event-notification.go`. Also where an object that was *found* becomes the event that its
notification would have made: `object_event`, for `kfp-triggers fire` and the reconciling scan; and that notification:
`told_anew`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote_plus, unquote_plus

from pydantic import BaseModel, BeforeValidator, Field

from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of, rfc3339
from triggers.payload import clean, json_object, mapping, moment, sequence, text, text_map, token, whole
from triggers.quantities import duration
from triggers.reason import Reason
from triggers.signature import check_bearer
from triggers.source import STRICT, Auth, SourceType, ignored, quarantined, schema

#: Told as "created", though only what hangs on the object changed. Their sequencer is the object's, so they would be
#: the very event of its upload; they get an identity of their own, as one that overtakes the upload would hide it.
NOT_THE_CONTENT = frozenset(
    f"ObjectCreated:{name}" for name in ("PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold")
)
#: Nothing was there to remove.
NOTHING_REMOVED = "ObjectRemoved:NoOP"
#: Families of names that start nothing: MinIO's, AWS's and Ceph's.
IGNORED_FAMILIES = frozenset(
    (
        "BucketCreated",
        "BucketRemoved",
        "IntelligentTiering",
        "LifecycleDelMarkerExpiration",
        "LifecycleExpiration",
        "LifecycleTransition",
        "ObjectAccessed",
        "ObjectAcl",
        "ObjectLifecycle",
        "ObjectRestore",
        "ObjectSynced",
        "ObjectTagging",
        "ObjectTransition",
        "ReducedRedundancyLostObject",
        "Replication",
        "Scanner",
        "TestEvent",
    )
)

_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SAME_MOMENT = timedelta(days=1)
_META = "x-amz-meta-"


def _every(given: Any) -> timedelta:
    if not isinstance(given, str):
        raise ValueError("must be a time such as `5m`")
    return duration(given)


def _scan(given: Any) -> Any:
    if given == "off":
        return None
    if not isinstance(given, dict):
        raise ValueError("must be `off`, or a mapping such as {every: 5m}")
    return given


class Scan(BaseModel):
    """How what no notification told of is looked for."""

    model_config = STRICT

    every: Annotated[timedelta, BeforeValidator(_every)] = timedelta(minutes=5)
    prefix: Annotated[str, Field(max_length=1024)] = ""  #: only of keys that begin so


class Config(BaseModel):
    """`type: minio`."""

    model_config = STRICT

    buckets: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")]], Field(min_length=1)]
    scan: Annotated[Scan | None, BeforeValidator(_scan)] = Scan()  #: None: `off`
    auth: Auth = None


@dataclass(frozen=True, kw_only=True)
class _Object:
    """What a record or a listing says of one object."""

    bucket: str
    key: str
    version_id: str
    etag: str = ""
    size: int = 0
    content_type: str = ""
    metadata: Mapping[str, str]


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """`MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_…`, as `Authorization`."""
    if config.auth != "none":
        check_bearer(delivery, secrets)


def read(config: Config, delivery: Delivery) -> Reading:
    """Every record: MinIO sends one in a body, others send many."""
    body = json_object(delivery.body)
    digest = hashlib.sha256(delivery.body).hexdigest()
    if body.get("Event") == "s3:TestEvent" and "Records" not in body:  # AWS, once, when a bucket is set up
        key = key_of("minio", digest)
        event = ignored("object.other", "s3:TestEvent", delivery.received_at, Reason.KNOWN_AND_IGNORED, key)
        return Reading(transport_key=key, events=(event,))
    records = sequence(body, "Records")
    if not records:
        raise NotUnderstood("there are no Records")
    names = [_notification(record) for record in records]
    key = key_of("minio", *names) if all(names) else key_of("minio", digest)
    events = [_event(config, delivery, record, (digest, place)) for place, record in enumerate(records)]
    return Reading(transport_key=key, events=tuple(events))


def object_event(
    *,
    bucket: str,
    key: str,
    etag: str,
    version_id: str,
    size: int,
    last_modified: datetime,
    content_type: str,
    metadata: Mapping[str, str],
) -> Event:
    """The event of an object that was found: identical to the one of its notification.

    `last_modified` is the listing's, in milliseconds (`stat` has whole seconds: then an unversioned object's event is
    another one). `metadata` is the user's, with or without `x-amz-meta-`.
    """
    found = _Object(
        bucket=bucket,
        key=_key(key),
        version_id=_version(version_id),
        etag=etag.strip('"'),
        size=size,
        content_type=clean(content_type),
        metadata={_bare(clean(name)): clean(value) for name, value in metadata.items()},
    )
    return _created(found, _to_millisecond(last_modified))


def told_anew(events: Sequence[Event]) -> bytes:
    """The notification that should have come, of events that `object_event` made: `read` makes the same ones of it."""
    name = "s3:ObjectCreated:Found"
    return json.dumps({"EventName": name, "Records": [_record(name, one) for one in events]}).encode()


def _record(name: str, found: Event) -> dict[str, Any]:
    data = found.data
    told = {
        "key": quote_plus(data["key"]),
        "size": data["size"],
        "eTag": data["etag"],
        "versionId": data["version_id"],
        "contentType": data["content_type"],
        "userMetadata": {f"X-Amz-Meta-{word}": value for word, value in data["metadata"].items()},
        "sequencer": f"{(found.time - _EPOCH) // _MILLISECOND * 10**6:X}",
    }
    s3 = {"bucket": {"name": data["bucket"]}, "object": told}
    return {"eventName": name, "eventTime": rfc3339(found.time), "s3": s3}


def _event(config: Config, delivery: Delivery, record: Any, place: tuple[str, int]) -> Event:
    """One bad record leaves the others alone."""
    try:
        name = token(mapping({"record": record}, "record"), "eventName", longest=128).removeprefix("s3:")
        if name.partition(":")[0] in IGNORED_FAMILIES:
            return ignored("object.other", name, delivery.received_at, Reason.KNOWN_AND_IGNORED, *place)
        found = _object(record)
        return _told(config, found, name, record)
    except NotUnderstood as error:
        return quarantined("object.other", delivery.source, delivery.received_at, error.detail, *place)


def _told(config: Config, found: _Object, name: str, record: dict[str, Any]) -> Event:
    happened = moment(record, "eventTime")
    sequencer = text(mapping(mapping(record, "s3"), "object"), "sequencer")
    request = text(mapping(record, "responseElements"), "x-amz-request-id")
    once = (found.bucket, found.key, found.version_id, name, sequencer, request, happened)
    if name in NOT_THE_CONTENT or name == NOTHING_REMOVED:
        return ignored("object.other", _uri(found), happened, Reason.KNOWN_AND_IGNORED, *once)
    kind = {"ObjectCreated": "object.created", "ObjectRemoved": "object.removed"}.get(name.partition(":")[0])
    if kind is None:
        raise NotUnderstood("eventName is none that this source knows")
    if found.bucket not in config.buckets:
        return ignored(kind, _uri(found), happened, Reason.NOT_FOR_US, *once)
    if kind == "object.created":
        return _created(found, _modified(sequencer, happened))
    identity = key_of(kind, found.bucket, found.key, found.version_id, sequencer or happened)
    return Event(type=kind, subject=_uri(found), time=happened, data=_data(found), identity=identity)


def _created(found: _Object, modified: datetime) -> Event:
    """A version has a name; what has none is told apart by its content and its millisecond."""
    versioned = (found.version_id,) if found.version_id else (found.etag, (modified - _EPOCH) // _MILLISECOND)
    return Event(
        type="object.created",
        subject=_uri(found),
        time=modified,
        data=_data(found),
        identity=key_of("object.created", found.bucket, found.key, *versioned),
        run_key=found.metadata.get("run-key", ""),
    )


def _modified(sequencer: str, happened: datetime) -> datetime:
    """MinIO's sequencer is the object's time in hex nanoseconds, and so equals the listing's to the millisecond.

    `eventTime` is some milliseconds later, and all there is when the sequencer is absent or another store's counter.
    https://github.com/minio/minio/blob/7aac2a2c5b7c/cmd/event-notification.go (`ToEvent`)
    """
    if _SEQUENCER.fullmatch(sequencer):
        nanoseconds = int(sequencer, 16)
        if abs(nanoseconds // 10**9 - happened.timestamp()) < _SAME_MOMENT.total_seconds():
            return _EPOCH + (nanoseconds // 10**6) * _MILLISECOND
    return _to_millisecond(happened)


def _to_millisecond(time: datetime) -> datetime:
    return _EPOCH + ((time - _EPOCH) // _MILLISECOND) * _MILLISECOND


def _object(record: dict[str, Any]) -> _Object:
    s3 = mapping(record, "s3")
    told = mapping(s3, "object")
    encoded = token(told, "key", longest=4096)
    try:
        # Go's url.QueryEscape: space is `+`. Undone once: the key itself may hold `%2F` or `+`.
        key = unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError:
        raise NotUnderstood("the key is not UTF-8") from None
    metadata = text_map(told, "userMetadata")
    return _Object(
        bucket=token(mapping(s3, "bucket"), "name", longest=255),
        key=_key(key),
        version_id=_version(text(told, "versionId")),
        etag=text(told, "eTag").strip('"'),
        size=whole(told, "size"),
        content_type=text(told, "contentType"),
        # MinIO lists standard headers there too; only the user's own are metadata.
        metadata={_bare(name): value for name, value in metadata.items() if name.lower().startswith(_META)},
    )


def _key(key: str) -> str:
    """A key is opaque, but it has to be stored: as UTF-8, of S3's length, without NUL."""
    if not key or clean(key) != key or len(key.encode()) > 1024:
        raise NotUnderstood("the key is empty, longer than 1,024 bytes, or holds NUL or a lone surrogate")
    return key


def _version(version_id: str) -> str:
    """`null` is the version of an object in a bucket without versions."""
    return "" if version_id == "null" else version_id


def _bare(name: str) -> str:
    return name.lower().removeprefix(_META)


def _uri(found: _Object) -> str:
    return f"s3://{found.bucket}/{found.key}"


def _notification(record: Any) -> str:
    """What makes a record one notification, by whatever transport it comes; "" if it does not say."""
    try:
        told = mapping(mapping(record, "s3"), "object")
        elements = mapping(record, "responseElements")
        sequencer, request = text(told, "sequencer"), text(elements, "x-amz-request-id")
        bucket = text(mapping(mapping(record, "s3"), "bucket"), "name")
        where = (text(elements, "x-minio-deployment-id"), bucket, text(told, "key"), text(told, "versionId"))
        what = (text(record, "eventName"), text(record, "eventTime"), text(told, "eTag"), sequencer, request)
    except NotUnderstood:
        return ""
    return key_of(*where, *what) if sequencer and request else ""


def _data(found: _Object) -> dict[str, Any]:
    folder, _, name = found.key.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:  # `.hidden`, or no dot at all
        stem, dot, extension = name, "", ""
    return {
        "object": _uri(found),
        "bucket": found.bucket,
        "key": found.key,
        "dir": folder,
        "name": name,
        "stem": stem,
        "ext": dot + extension,
        "size": found.size,
        "etag": found.etag,
        "version_id": found.version_id,
        "content_type": found.content_type,
        "metadata": dict(found.metadata),
    }


_FIELDS = {
    "object": ("string", "the object's URI, s3://bucket/key"),
    "bucket": ("string", "its bucket"),
    "key": ("string", "its key, as it was uploaded"),
    "dir": ("string", "the key up to the last /, without it; empty at the top"),
    "name": ("string", "the key after the last /"),
    "stem": ("string", "the name without its extension"),
    "ext": ("string", "the extension with its dot, e.g. .csv; empty if there is none"),
    "size": ("int", "bytes; 0 for a removed object"),
    "etag": ("string", "a hash of the content, not always its MD5; empty for a removed object"),
    "version_id": ("string", "its version; empty in a bucket without versions. Of a removal it may be a delete marker"),
    "content_type": ("string", "as its uploader said"),
    "metadata": ("map", "its uploader's own metadata, names in lower case without x-amz-meta-"),
}
_CREATED = {
    "object": "s3://user-ids/incoming/2026-11-21.csv",
    "bucket": "user-ids",
    "key": "incoming/2026-11-21.csv",
    "dir": "incoming",
    "name": "2026-11-21.csv",
    "stem": "2026-11-21",
    "ext": ".csv",
    "size": 14,
    "etag": "b2b77e7f8cf82ca66c91c2a5c4bb98dc",
    "version_id": "",
    "content_type": "text/csv",
    "metadata": {"owner": "ml team"},
}
_REMOVED = _CREATED | {"size": 0, "etag": "", "content_type": "", "metadata": {}}

TYPE = SourceType(
    name="minio",
    config=Config,
    verify=verify,
    read=read,
    types={"object.created": schema(_FIELDS, _CREATED), "object.removed": schema(_FIELDS, _REMOVED)},
)
