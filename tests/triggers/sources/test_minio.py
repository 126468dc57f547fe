"""Bucket notifications."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.errors import NotAuthentic, NotUnderstood
from triggers.event import Delivery, Event, Reading, Verdict
from triggers.reason import Reason
from triggers.sources import minio
from triggers.sources.minio import object_event

Captured = Callable[[str, str], Delivery]
Deliver = Callable[..., Delivery]
Read = Callable[[Delivery], Reading]

ETAG = "b2b77e7f8cf82ca66c91c2a5c4bb98dc"
# What a listing of the buckets said after the captured uploads: key, last_modified, version, by the upload's case.
LISTED = {
    "put": ("user-ids", "incoming/2026-11-21.csv", "2026-11-21T07:51:25.781+00:00", "", ETAG),
    "put-space-plus-percent": ("user-ids", "incoming/a b+c%2Fd 100%.csv", "2026-11-21T07:51:26.385+00:00", "", ETAG),
    "put-unicode": (
        "user-ids",
        "incoming/Zürich-東京-\N{GRINNING FACE}.csv",
        "2026-11-21T07:51:26.990+00:00",
        "",
        ETAG,
    ),
    "put-hidden": ("user-ids", ".hidden", "2026-11-21T07:51:28.807+00:00", "", f'"{ETAG}"'),
    "put-folder": (
        "user-ids",
        "incoming/folder/",
        "2026-11-21T07:51:29.411+00:00",
        "null",
        "d41d8cd98f00b204e9800998ecf8427e",
    ),
    "versioned-put-again": (
        "models",
        "income/features.csv",
        "2026-11-21T07:51:36.136+00:00",
        "e6dc79b8-4314-4ae5-b6aa-b9b5316877bc",
        "dc69c12b5fcf36aa20e0321b425adaef",
    ),
}


def _found(case: str = "put", **changes: Any) -> Event:
    bucket, key, modified, version, etag = LISTED[case]
    facts: dict[str, Any] = {
        "bucket": bucket,
        "key": key,
        "etag": etag,
        "version_id": version,
        "size": 14,
        "last_modified": datetime.fromisoformat(modified),
        "content_type": "text/csv",
        "metadata": {},
    }
    return object_event(**(facts | changes))


def _record(name: str = "s3:ObjectCreated:Put", **told: Any) -> dict[str, Any]:
    """A record with nothing in it that a sender may leave out."""
    bucket = told.pop("bucket", "user-ids")
    time = told.pop("time", "2026-11-21T07:51:25.782Z")
    return {
        "eventName": name,
        "eventTime": time,
        "s3": {"bucket": {"name": bucket}, "object": {"key": "a.csv", "eTag": ETAG, "size": 14} | told},
    }


def _body(*records: Any) -> str:
    return json.dumps({"Records": records})


@given(
    key=st.text(min_size=1, max_size=300),
    version_id=st.sampled_from(["", "e6dc79b8"]),
    size=st.integers(0, 2**50),
    nanoseconds=st.integers(10**18, 2 * 10**18),
    content_type=st.text(max_size=20),
    metadata=st.dictionaries(st.text(max_size=9).map(str.lower), st.text(max_size=9), max_size=3),
)
def test_what_is_told_anew_is_read_as_what_was_found(nanoseconds: int, metadata: dict[str, str], **facts: Any) -> None:
    modified = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    try:
        found = _found(last_modified=modified, metadata=metadata, **facts)
    except NotUnderstood:
        return
    body = minio.told_anew([found, _found()])
    delivery = Delivery(source="uploads", headers={}, body=body, received_at=modified)
    read = minio.read(minio.Config(buckets=["user-ids"], auth="none"), delivery)
    assert list(read.events) == [found, _found()]


@pytest.mark.parametrize("case", LISTED)
def test_an_object_that_was_found_is_the_event_of_its_notification(case: str, captured: Captured, read: Read) -> None:
    [told] = read(captured("minio", case)).events
    found = _found(case)
    assert found.identity == told.identity
    assert found.time == told.time
    assert {name: found.data[name] for name in ("object", "dir", "stem", "ext", "etag", "version_id")} == {
        name: told.data[name] for name in ("object", "dir", "stem", "ext", "etag", "version_id")
    }


def test_the_metadata_and_run_key_of_a_found_object_are_those_of_its_notification(
    captured: Captured, read: Read
) -> None:
    [told] = read(captured("minio", "put-user-metadata")).events
    found = _found(metadata={"X-Amz-Meta-Run-Key": "score-new-users-1a2b3c", "owner": "ml team"})
    assert (found.run_key, found.data["metadata"]) == (told.run_key, told.data["metadata"])
    assert told.run_key == "score-new-users-1a2b3c"


@pytest.mark.parametrize(
    "changes",
    [
        {"etag": "0" * 32},
        {"key": "other.csv"},
        {"bucket": "models"},
        {"last_modified": datetime(2026, 11, 21, 7, 51, 25, 782000, UTC)},
        {"version_id": "v1"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_object_is_another_event(changes: dict[str, Any]) -> None:
    assert _found(**changes).identity != _found().identity


def test_microseconds_below_the_listings_milliseconds_change_nothing() -> None:
    assert _found(last_modified=datetime(2026, 11, 21, 7, 51, 25, 781999, UTC)).identity == _found().identity


def test_a_version_is_told_apart_by_its_name_alone() -> None:
    later = _found("versioned-put-again", last_modified=datetime(2026, 11, 22, tzinfo=UTC))
    assert later.identity == _found("versioned-put-again").identity


@pytest.mark.parametrize(
    ("upload", "tagging"),
    [("put", "tagging"), ("put", "tagging-removed"), ("versioned-put-again", "versioned-tagging")],
)
def test_tagging_starts_nothing_and_does_not_stand_in_for_the_upload(
    upload: str, tagging: str, captured: Captured, read: Read
) -> None:
    [uploaded], [tagged] = (read(captured("minio", case)).events for case in (upload, tagging))
    assert (tagged.verdict, tagged.reason) == (Verdict.IGNORED, Reason.KNOWN_AND_IGNORED)
    assert tagged.identity != uploaded.identity


def test_removing_what_is_not_there_is_ignored(captured: Captured, read: Read) -> None:
    [event] = read(captured("minio", "remove-absent")).events
    assert (event.verdict, event.reason) == (Verdict.IGNORED, Reason.KNOWN_AND_IGNORED)


@pytest.mark.parametrize("case", ["remove", "delete-marker", "versioned-delete", "multi-delete-first"])
def test_a_removal_is_an_event_of_its_own(case: str, captured: Captured, read: Read) -> None:
    [event] = read(captured("minio", case)).events
    assert (event.type, event.verdict) == ("object.removed", Verdict.ACCEPTED)
    assert event.data["size"] == 0


def test_the_objects_of_one_delete_request_are_different_deliveries(captured: Captured, read: Read) -> None:
    readings = [read(captured("minio", f"multi-delete-{which}")) for which in ("first", "second")]
    assert len({reading.transport_key for reading in readings}) == 2
    assert len({reading.events[0].identity for reading in readings}) == 2


def test_the_same_record_in_another_envelope_is_the_same_notification(
    captured: Captured, deliver: Deliver, read: Read
) -> None:
    delivery = captured("minio", "put")
    alone = deliver("minio", json.dumps({"Records": json.loads(delivery.body)["Records"]}))
    assert read(alone).transport_key == read(delivery).transport_key


def test_two_notifications_of_one_request_are_told_apart_by_the_events_name(
    captured: Captured, deliver: Deliver, read: Read
) -> None:
    put = json.loads(captured("minio", "put").body)["Records"][0]
    names = ("s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete")
    first, second = (
        read(deliver("minio", json.dumps({"Records": [put | {"eventName": name}]}))).transport_key for name in names
    )
    assert first != second


def test_records_without_a_request_id_are_told_apart_by_their_bytes(deliver: Deliver, read: Read) -> None:
    first, second = (read(deliver("minio", _body(_record(eTag=etag)))) for etag in ("a", "b"))
    assert first.transport_key != second.transport_key


def test_every_record_of_a_body_is_read_and_a_bad_one_leaves_the_others_alone(deliver: Deliver, read: Read) -> None:
    records = [_record(key="a.csv"), 7, _record(key="%FF"), _record(size=-1), {}, None, _record(key="b.csv")]
    events = read(deliver("minio", _body(*records))).events
    assert [event.verdict for event in events] == [
        Verdict.ACCEPTED,
        *[Verdict.QUARANTINED] * 5,
        Verdict.ACCEPTED,
    ]
    assert len({event.identity for event in events}) == len(events)
    assert all(event.reason is Reason.NOT_UNDERSTOOD and event.detail for event in events[1:6])


@pytest.mark.parametrize(
    "told",
    [
        {"key": "a%00b"},
        {"key": "a\x00b"},
        {"key": ""},
        {"key": None},
        {"key": ["a"]},
        {"key": "\ud800"},
        {"key": "%ED%A0%80"},
        {"key": "k" * 1025},
        {"size": 2**63},
        {"size": "14"},
        {"size": True},
        {"size": 1.5},
        {"eTag": 7},
        {"userMetadata": [1]},
        {"userMetadata": {"X-Amz-Meta-A": 1}},
        {"time": "yesterday"},
        {"time": "2026-11-21T07:51:25.782"},
        {"time": "0001-01-01T00:00:00Z"},
        {"time": 7},
        {"bucket": 7},
        {"bucket": "\ud800"},
    ],
    ids=repr,
)
def test_a_record_of_another_shape_is_quarantined(told: dict[str, Any], deliver: Deliver, read: Read) -> None:
    [event] = read(deliver("minio", _body(_record(**told)))).events
    assert event.verdict is Verdict.QUARANTINED


@pytest.mark.parametrize("size", [{}, {"size": None}])
def test_an_empty_object_has_size_0(size: dict[str, Any], deliver: Deliver, read: Read) -> None:
    record = _record(**size)
    if not size:
        del record["s3"]["object"]["size"]
    [event] = read(deliver("minio", _body(record))).events
    assert event.data["size"] == 0


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("ObjectCreated:Put", Verdict.ACCEPTED),  # AWS and Ceph: without `s3:`
        ("s3:ObjectCreated:Post", Verdict.ACCEPTED),
        ("s3:ObjectCreated:CompleteMultipartUpload", Verdict.ACCEPTED),
        ("s3:ObjectRemoved:DeleteAllVersions", Verdict.ACCEPTED),
        ("s3:ObjectCreated:PutRetention", Verdict.IGNORED),
        ("s3:ObjectCreated:PutLegalHold", Verdict.IGNORED),
        ("s3:ObjectAccessed:Head", Verdict.IGNORED),
        ("s3:Replication:OperationFailedReplication", Verdict.IGNORED),
        ("s3:Scanner:ManyVersions", Verdict.IGNORED),
        ("s3:ObjectTagging:Put", Verdict.IGNORED),
        ("s3:BucketCreated:*", Verdict.IGNORED),
        ("s3:ObjectTeleported:Away", Verdict.QUARANTINED),
        ("", Verdict.QUARANTINED),
    ],
)
def test_a_name_decides_what_becomes_of_a_record(name: str, verdict: Verdict, deliver: Deliver, read: Read) -> None:
    [event] = read(deliver("minio", _body(_record(name)))).events
    assert event.verdict is verdict


def test_the_test_message_of_aws_is_ignored(deliver: Deliver, read: Read) -> None:
    [event] = read(deliver("minio", '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}')).events
    assert (event.verdict, event.subject) == (Verdict.IGNORED, "s3:TestEvent")


@pytest.mark.parametrize("body", ['{"Records": []}', '{"Records": null}', "{}", '{"Records": {}}', '{"Records": "x"}'])
def test_a_body_without_records_is_not_understood(body: str, deliver: Deliver, read: Read) -> None:
    with pytest.raises(NotUnderstood):
        read(deliver("minio", body))


def test_a_bucket_that_is_not_listed_is_not_for_us_and_may_be_listed_later(deliver: Deliver, read: Read) -> None:
    ours, other = read(deliver("minio", _body(_record(), _record(bucket="other")))).events
    assert (other.verdict, other.reason) == (Verdict.IGNORED, Reason.NOT_FOR_US)
    listed = minio.read(minio.Config(buckets=["other"]), deliver("minio", _body(_record(bucket="other")))).events[0]
    assert len({ours.identity, other.identity, listed.identity}) == 3


@pytest.mark.parametrize(
    ("sequencer", "millisecond"),
    [
        ("18EA0013A1EC183F", 781),  # MinIO: the object's own nanoseconds
        ("0055AED6DCD90281E5", 782),  # AWS: a counter
        ("", 782),
        ("xyz", 782),
        ("F" * 40, 782),
    ],
)
def test_the_time_is_the_objects_own_or_else_the_messages(
    sequencer: str, millisecond: int, deliver: Deliver, read: Read
) -> None:
    [event] = read(deliver("minio", _body(_record(sequencer=sequencer)))).events
    assert event.time == datetime(2026, 11, 21, 7, 51, 25, millisecond * 1000, UTC)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("incoming/2026-11-21.csv", ("incoming", "2026-11-21.csv", "2026-11-21", ".csv")),
        ("a/b/c.tar.gz", ("a/b", "c.tar.gz", "c.tar", ".gz")),
        ("plain", ("", "plain", "plain", "")),
        (".hidden", ("", ".hidden", ".hidden", "")),
        ("a//../b.csv", ("a//..", "b.csv", "b", ".csv")),
        ("folder/", ("folder", "", "", "")),
        ("dot.", ("", "dot.", "dot", ".")),
        ("tab\t\nline.csv", ("", "tab\t\nline.csv", "tab\t\nline", ".csv")),
    ],
)
def test_a_key_is_taken_apart_and_never_normalised(key: str, parts: tuple[str, ...]) -> None:
    data = _found(key=key).data
    assert tuple(data[name] for name in ("dir", "name", "stem", "ext")) == parts
    assert data["stem"] + data["ext"] == data["name"]
    assert data["object"] == f"s3://user-ids/{key}"


def test_text_that_cannot_be_stored_is_shown_as_such(deliver: Deliver, read: Read) -> None:
    record = _record(contentType="a\x00b", userMetadata={"X-Amz-Meta-\ud800": "\udfff"})
    [event] = read(deliver("minio", _body(record))).events
    assert (event.data["content_type"], event.data["metadata"]) == ("a\ufffdb", {"\ufffd": "\ufffd"})


def test_a_token_of_another_source_is_refused(captured: Captured, verify: Callable[..., None]) -> None:
    with pytest.raises(NotAuthentic):
        verify(captured("minio", "put"), [b"alerts-token-0123456789"])
