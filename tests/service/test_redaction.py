"""Redaction at ingest: what a source names is nowhere in the store, and what was sent is known again all the same."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from world import SOURCES, TOKEN, World, notification

from service.errors import Permanent
from service.flow import dead
from service.flow.receive import receive
from service.records import DeadQuery, EventState, Query
from triggers.event import Delivery
from triggers.redaction import redact
from triggers.sourcefile import load_sources
from triggers.yamlfile import Problems

HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", "user-agent": "jane's laptop"}
CANARY = "jane.doe@example.org"


def redacting(world: World, *entries: str) -> None:
    """The source of uploads, with these entries."""
    there = "buckets: [user-ids, predictions]"
    (world.home / "sources.yaml").write_text(SOURCES.replace(there, f"{there}, redact: {json.dumps(list(entries))}"))


def send(world: World, body: bytes, **headers: str) -> Sequence[str]:
    delivery = Delivery(source="uploads", headers=HEADERS | headers, body=body, received_at=world.clock.now())
    return receive(world.app, delivery).event_ids


def everything(world: World) -> bytes:
    """The bytes of the store, its journal too."""
    return b"".join(path.read_bytes() for path in Path(world.home).glob("store.db*"))


def of_jane(**changes: object) -> bytes:
    return notification("incoming/a.csv", userMetadata={"X-Amz-Meta-Owner": CANARY}, **changes)


def test_what_is_named_is_nowhere_in_the_store(world: World) -> None:
    redacting(world, "Records.s3.object.userMetadata", "user-agent", "principalId")
    (event_id,) = send(world, of_jane())
    world.answer()
    item = world.store.events.get(event_id)
    assert item is not None
    assert (item.state, item.event.data["metadata"]) == (EventState.DECIDED, {})
    (delivery,) = world.store.events.deliveries(Query())
    assert delivery.headers["user-agent"] == "[redacted]"
    assert len(world.store.runs.list(Query())) == 1
    assert CANARY.encode() not in everything(world)
    assert b"jane" not in everything(world)


def test_it_would_be_there_without(world: World) -> None:
    send(world, of_jane())
    assert CANARY.encode() in everything(world)


def test_the_signature_is_of_what_was_sent_and_so_is_the_identity(world: World) -> None:
    before = send(world, of_jane())
    redacting(world, "eTag", "x-amz-request-id", "userMetadata")
    assert send(world, of_jane()) == before
    assert send(world, of_jane(request="another notification of it")) == before
    assert send(world, of_jane(eTag="e2", request="R3")) != before


def test_a_push_with_a_redacted_author_is_a_push(world: World) -> None:
    import hashlib
    import hmac

    sha = "a" * 40
    told = {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": sha,
        "created": True,
        "deleted": False,
        "forced": False,
        "repository": {"full_name": "acme/model", "default_branch": "main"},
        "pusher": {"name": CANARY, "email": CANARY},
        "commits": [{"id": sha, "message": "m", "author": {"name": CANARY, "email": CANARY}, "added": ["src/a.py"]}],
        "head_commit": {"id": sha, "message": "m", "author": {"name": CANARY}, "timestamp": "2026-11-21T07:00:00Z"},
    }
    sources = SOURCES.replace(
        "repositories: {acme",
        'redact: ["author.*", "commits.author.*", "pusher", "head_commit.author.name"], repositories: {acme',
    )
    (world.home / "sources.yaml").write_text(sources)
    body = json.dumps(told).encode()
    signature = "sha256=" + hmac.new(TOKEN.encode(), body, hashlib.sha256).hexdigest()
    headers = {"x-github-event": "push", "x-github-delivery": "d1", "x-hub-signature-256": signature}
    delivery = Delivery(source="model-repo", headers=HEADERS | headers, body=body, received_at=world.clock.now())
    (event_id,) = receive(world.app, delivery).event_ids
    item = world.store.events.get(event_id)
    assert item is not None
    assert (item.event.type, item.event.data["sha"], item.event.data["paths"]) == ("git.push", sha, ["src/a.py"])
    assert item.event.position == sha
    assert CANARY.encode() not in everything(world)


def test_what_is_needed_to_read_it_cannot_be_redacted_in_silence(world: World) -> None:
    redacting(world, "Records")
    (event_id,) = send(world, of_jane())
    item = world.store.events.get(event_id)
    assert item is not None
    assert item.state is EventState.QUARANTINED
    assert "take it off the source's `redact`" in item.detail
    assert CANARY.encode() not in everything(world)


def test_what_is_no_json_is_quarantined_without_its_body(world: World) -> None:
    redacting(world, "userMetadata")
    send(world, f"not JSON, of {CANARY}".encode())
    (letter,) = world.store.dead.list(DeadQuery())
    assert CANARY.encode() not in everything(world)
    with pytest.raises(Permanent, match="no longer kept"):
        dead.retry(world.app, letter, "ada", "")


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        (["a"], {"a": "[redacted]", "b": {"a": 0, "c": [{"d": "y"}]}, "n": None}),
        (["A"], {"a": "[redacted]", "b": {"a": 0, "c": [{"d": "y"}]}, "n": None}),
        (["$.a"], {"a": "[redacted]", "b": {"a": 7, "c": [{"d": "y"}]}, "n": None}),
        (["b.a"], {"a": "x", "b": {"a": 0, "c": [{"d": "y"}]}, "n": None}),
        (["b.c.d"], {"a": "x", "b": {"a": 7, "c": [{"d": "[redacted]"}]}, "n": None}),
        (["b.*"], {"a": "x", "b": {"a": 0, "c": []}, "n": None}),
        (["b", "n"], {"a": "x", "b": {}, "n": None}),
    ],
    ids=str,
)
def test_a_name_is_found_at_any_depth_and_a_path_from_the_top(entries: list[str], left: object) -> None:
    body = json.dumps({"a": "x", "b": {"a": 7, "c": [{"d": "y"}]}, "n": None}).encode()
    delivery = Delivery(source="s", headers={}, body=body, received_at=_now())
    assert json.loads(redact(delivery, entries).body) == left


def test_what_names_nothing_leaves_the_bytes_as_they_are() -> None:
    delivery = Delivery(source="s", headers={"user-agent": "x"}, body=b'{"a":  1}', received_at=_now())
    assert redact(delivery, ["b"]) == delivery
    form = dataclasses.replace(
        delivery,
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=b"payload=%7B%22a%22%3A+%22x%22%7D",
    )
    assert redact(form, ["a"]).body == b"payload=%7B%22a%22%3A+%22%5Bredacted%5D%22%7D"


@pytest.mark.parametrize("body", [b"[" * 900 + b"]" * 900, b"[" * 100_000, b"\xff", b"payload", b""])
def test_any_bytes_are_redacted_or_let_go_of(body: bytes) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        delivery = Delivery(source="s", headers={"content-type": kind}, body=body, received_at=_now())
        assert redact(delivery, ["a"]).body in (b"", body)


@pytest.mark.parametrize("entries", ["email", [1], [""], ["a..b"], ["a b"], [None]])
def test_what_is_no_list_of_names_and_paths_is_said_with_its_line(entries: object) -> None:
    source = f"{{type: minio, buckets: [bbb], auth: none,\n    redact: {json.dumps(entries)}}}"
    text = f"apiVersion: kfp-triggers/v1\nsources:\n  one: {source}\n"
    with pytest.raises(Problems) as found:
        load_sources(text, "sources.yaml")
    assert str(found.value.problems[0]).startswith("sources.yaml:4: sources.one.redact")


def _now():  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    return datetime(2026, 11, 21, tzinfo=UTC)
