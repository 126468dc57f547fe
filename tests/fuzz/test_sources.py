"""Whatever a sender says, its source reads it or says NotUnderstood, and what it reads can be stored."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fuzz.payloads import CONFIG, Request, parsed, requests

from triggers.errors import NotUnderstood
from triggers.event import Delivery, Reading, Verdict
from triggers.sources import SOURCES

FOUND = Path(__file__).parent / "found"  #: what was found once, by source: `found/minio/*.http`
PYTHON = {"string": str, "int": int, "bool": bool, "double": float, "list": list, "map": dict}


def _read(source: str, request: Request) -> None:
    headers, body = request
    delivery = Delivery(source=source, headers=headers, body=body, received_at=datetime(2026, 11, 21, tzinfo=UTC))
    try:
        reading = SOURCES[source].read(SOURCES[source].config.model_validate(dict(CONFIG[source])), delivery)
    except NotUnderstood as error:
        error.detail.encode("utf-8")
    else:
        _holds(source, reading)


def _holds(source: str, reading: Reading) -> None:
    for event in reading.events:
        written = json.dumps(
            [event.type, event.subject, event.detail, event.run_key, dict(event.data)], allow_nan=False
        )
        told = json.dumps(json.loads(written), ensure_ascii=False).encode("utf-8")
        assert b"\\u0000" not in told
        assert event.time.utcoffset() is not None
        if event.verdict is Verdict.ACCEPTED:
            fields = SOURCES[source].types[event.type].fields
            assert {name: type(found) for name, found in event.data.items()} == {
                name: PYTHON[word] for name, word in fields.items()
            }
        else:
            assert event.reason


@pytest.mark.parametrize("source", SOURCES)
def test_any_request_is_read_or_not_understood(source: str, fuzz: Any) -> None:
    fuzz.play(0.05, lambda request: _read(source, request), request=requests(source))


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_found_once_is_read_or_not_understood(source: str) -> None:
    for path in sorted((FOUND / source).glob("*.http")):
        _read(source, parsed(path.read_bytes()))
