"""Every captured request is authentic, and is read as the golden beside it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triggers.event import Delivery, Event, Reading, Verdict, rfc3339
from triggers.sources import SOURCES

CAPTURED = Path(__file__).parent / "captured"
CASES = sorted(str(path.relative_to(CAPTURED).with_suffix("")) for path in CAPTURED.glob("*/*.http"))
_PYTHON = {"string": str, "int": int, "bool": bool, "double": float, "list": list, "map": dict}


def as_golden(reading: Reading) -> dict[str, Any]:
    """A reading as its golden has it: what is empty is left out."""
    return {"transport_key": reading.transport_key, "events": [_event(event) for event in reading.events]}


def _event(event: Event) -> dict[str, Any]:
    fields = vars(event) | {"time": rfc3339(event.time), "data": dict(event.data)}
    return {name: str(found) if name in ("verdict", "reason") else found for name, found in fields.items() if found}


@pytest.mark.parametrize("case", CASES)
def test_a_captured_request_is_read_as_its_golden_says(
    case: str, captured: Callable[[str, str], Delivery], read: Callable[[Delivery], Reading]
) -> None:
    source, _, name = case.partition("/")
    golden = json.loads((CAPTURED / f"{case}.events.json").read_text(encoding="utf-8"))
    assert as_golden(read(captured(source, name))) == golden


@pytest.mark.parametrize("case", CASES)
def test_a_captured_request_is_authentic(
    case: str, captured: Callable[[str, str], Delivery], verify: Callable[..., None]
) -> None:
    verify(captured(*case.split("/")))


@pytest.mark.parametrize("case", CASES)
def test_an_accepted_event_carries_exactly_the_fields_of_its_schema(
    case: str, captured: Callable[[str, str], Delivery], read: Callable[[Delivery], Reading]
) -> None:
    source, _, name = case.partition("/")
    for event in read(captured(source, name)).events:
        if event.verdict is Verdict.ACCEPTED:
            fields = SOURCES[source].types[event.type].fields
            assert {field: type(found) for field, found in event.data.items()} == {
                field: _PYTHON[word] for field, word in fields.items()
            }


def test_every_golden_has_its_request() -> None:
    goldens = {str(path.relative_to(CAPTURED)).removesuffix(".events.json") for path in CAPTURED.glob("*/*.json")}
    assert goldens == set(CASES)
