"""What every source type has to be."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from triggers.errors import NotAuthentic
from triggers.event import Delivery, Verdict
from triggers.sources import SOURCES

Deliver = Callable[..., Delivery]
TYPES = [(source, name) for source, kind in SOURCES.items() for name in kind.types]
_PYTHON = {"string": str, "int": int, "bool": bool, "double": float, "list": list, "map": dict}


def test_a_type_is_listed_under_its_own_name() -> None:
    assert {name: kind.name for name, kind in SOURCES.items()} == {name: name for name in SOURCES}


@pytest.mark.parametrize(("source", "event_type"), TYPES)
def test_a_sample_has_every_field_of_its_schema_in_its_type(source: str, event_type: str) -> None:
    schema = SOURCES[source].types[event_type]
    assert {name: type(found) for name, found in schema.sample.items()} == {
        name: _PYTHON[word] for name, word in schema.fields.items()
    }
    assert set(schema.texts) == set(schema.fields)
    assert all(schema.texts.values())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("secrets", [[], [b""]], ids=["none", "empty"])
def test_without_a_secret_nothing_is_authentic(
    source: str, secrets: list[bytes], deliver: Deliver, verify: Callable[..., None]
) -> None:
    with pytest.raises(NotAuthentic):
        verify(
            deliver(source, "{}", authorization="Bearer ", x_gitlab_token="", x_hub_signature_256="sha256="), secrets
        )


@pytest.mark.parametrize("source", SOURCES)
def test_without_a_credential_nothing_is_authentic(source: str, deliver: Deliver, verify: Callable[..., None]) -> None:
    with pytest.raises(NotAuthentic):
        verify(deliver(source, "{}"))


@pytest.mark.parametrize("source", SOURCES)
def test_no_credential_is_asked_for_only_where_it_is_spelt_out(
    source: str, deliver: Deliver, config: Callable[..., Any]
) -> None:
    SOURCES[source].verify(config(source, auth="none"), deliver(source, "{}"), [])


@pytest.mark.parametrize(
    ("source", "limit", "content_types"),
    [
        ("minio", 1 << 20, {"application/json"}),
        ("manual", 1 << 20, {"application/json"}),
        ("mlflow", 1 << 20, {"application/json"}),
        ("alertmanager", 8 << 20, {"application/json"}),
        ("github", 25 << 20, {"application/json", "application/x-www-form-urlencoded"}),
        ("gitlab", 25 << 20, {"application/json"}),
        ("git", 25 << 20, {"application/json"}),
    ],
)
def test_the_door_is_as_wide_as_the_sender_needs(source: str, limit: int, content_types: set[str]) -> None:
    assert SOURCES[source].body_limit == limit
    assert set(SOURCES[source].content_types) == content_types


def test_verdicts_are_the_three_that_the_store_knows() -> None:
    assert {verdict.value for verdict in Verdict} == {"accepted", "ignored", "quarantined"}


def test_settings_refuse_what_they_do_not_know(config: Callable[..., Mapping[str, Any]]) -> None:
    for source in SOURCES:
        with pytest.raises(ValueError, match="extra_forbidden"):
            config(source, surprise=1)
