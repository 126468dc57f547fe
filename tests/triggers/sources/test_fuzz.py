"""Whatever a body holds, a source reads it or raises NotUnderstood, and what it reads can be stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.payloads import places, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triggers.errors import NotUnderstood, TriggerError
from triggers.event import Delivery, Event, Reading
from triggers.sources import SOURCES

Captured = Callable[[str, str], Delivery]
Deliver = Callable[..., Delivery]
Read = Callable[[Delivery], Reading]

CAPTURED = Path(__file__).parent / "captured"
CASES = sorted(str(path.relative_to(CAPTURED).with_suffix("")) for path in CAPTURED.glob("*/*.http"))
HEADERS = {"x_github_event": "push", "x_gitlab_event": "Push Hook"}
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["\x00", "\ud800", "refs/heads/x", "0" * 40, "2026-11-21T00:00:00Z", "0001-01-01T00:00:00Z", "%ZZ+"]
    ),
    st.sampled_from([10**400, -1, 2**63, 1e308]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _can_be_stored(event: Event) -> None:
    """As UTF-8, and in PostgreSQL."""
    written = json.dumps([event.type, event.subject, event.detail, event.run_key, dict(event.data)], ensure_ascii=False)
    assert "\\u0000" not in written
    assert event.time.utcoffset() is not None
    json.loads(written.encode("utf-8"))


def _try(read: Read, delivery: Delivery) -> None:
    try:
        reading = read(delivery)
    except NotUnderstood as error:
        error.detail.encode("utf-8")
        return
    assert len({event.identity for event in reading.events if event.identity}) <= len(reading.events)
    for event in reading.events:
        _can_be_stored(event)


@pytest.mark.parametrize("source", SOURCES)
@QUICK
@given(value=JSON)
def test_any_json_is_read_or_not_understood(source: str, value: Any, deliver: Deliver, read: Read) -> None:
    _try(read, deliver(source, json.dumps(value), **HEADERS))


@pytest.mark.parametrize("source", SOURCES)
@QUICK
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_not_understood(source: str, body: bytes, deliver: Deliver, read: Read) -> None:
    _try(read, deliver(source, body, **HEADERS))
    _try(read, deliver(source, b"payload=" + body, content_type="application/x-www-form-urlencoded", **HEADERS))


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("-form")])
@settings(QUICK, max_examples=25)
@given(data=st.data())
def test_a_captured_body_with_anything_in_any_place_is_read_or_not_understood(
    case: str, data: st.DataObject, captured: Captured, read: Read
) -> None:
    delivery = captured(*case.split("/"))
    body = json.loads(delivery.body)
    mutated = put(body, data.draw(st.sampled_from(places(body))), data.draw(JSON))
    raw = json.dumps(mutated).encode()
    _try(
        read,
        Delivery(source=delivery.source, headers=delivery.headers, body=raw, received_at=delivery.received_at),
    )


DEEP = 100_000
HOSTILE = {
    "nothing": b"",
    "not JSON": b"{",
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "not UTF-8": b'{"Records": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "deep arrays": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "deep and closed": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number of 5,000 digits": b'{"a":' + b"1" * 5000 + b"}",
    "NaN": b'{"a": NaN}',
    "minus infinity": b'{"a": -Infinity}',
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice, deeper": b'{"Records": [{"a": {"b": 1, "b": 1}}]}',
    "NUL": b'{"a": "\x00"}',
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_not_understood(source: str, body: bytes, deliver: Deliver, read: Read) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read(deliver(source, body, **HEADERS))
    assert refused.value.detail


@pytest.mark.parametrize("depth", [500, 900, 980, 995])
def test_nesting_just_below_the_limit_is_no_other_error(depth: int, deliver: Deliver, read: Read) -> None:
    nested = "[" * depth + "]" * depth
    _try(read, deliver("minio", f'{{"Records": [{nested}, {nested}]}}'))
    _try(read, deliver("git", f'{{"version": 1, "updates": [{nested}, {nested}]}}'))


@pytest.mark.parametrize("source", SOURCES)
@QUICK
@given(headers=st.dictionaries(st.sampled_from(["authorization", "x-gitlab-token", "x-hub-signature-256"]), st.text()))
def test_any_header_is_refused_and_never_an_error(
    source: str, headers: dict[str, str], deliver: Deliver, verify: Callable[..., None]
) -> None:
    with pytest.raises(TriggerError):
        verify(deliver(source, "{}", **headers))
