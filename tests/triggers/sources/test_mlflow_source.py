"""The registry's webhooks: what is authentic, what is an event, which two are one."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from triggers.errors import NotAuthentic, NotUnderstood
from triggers.event import Delivery, Reading, Verdict
from triggers.reason import Reason
from triggers.sources.mlflow import Move, alias_event

Deliver = Callable[..., Delivery]
Read = Callable[[Delivery], Reading]
Verify = Callable[..., None]

SECRET = b"registry-secret-0123456789"
NOW = int(datetime(2026, 11, 21, 8, 0, tzinfo=UTC).timestamp())
MOVED = {"name": "income-classifier", "alias": "champion", "version": "5"}


def body(entity: str = "model_version_alias", action: str = "created", **changes: Any) -> str:
    """What MLflow posts."""
    told = {"entity": entity, "action": action, "timestamp": "2026-11-21T07:59:59.5+00:00", "data": MOVED | changes}
    return json.dumps(told)


def signed(text: str, *, at: int = NOW, delivery: str = "d1", secret: bytes = SECRET) -> dict[str, str]:
    """The headers that MLflow sends with it."""
    digest = hmac.new(secret, f"{delivery}.{at}.{text}".encode(), hashlib.sha256).digest()
    return {
        "x_mlflow_delivery_id": delivery,
        "x_mlflow_timestamp": str(at),
        "x_mlflow_signature": f"v1,{base64.b64encode(digest).decode()}",
    }


@pytest.mark.parametrize("at", [NOW, NOW - 299, NOW + 299])
def test_what_the_secret_signed_not_long_ago_is_authentic(at: int, deliver: Deliver, verify: Verify) -> None:
    verify(deliver("mlflow", body(), **signed(body(), at=at)))


@pytest.mark.parametrize(
    ("said", "headers"),
    [
        ("another secret", signed(body(), secret=b"another-secret-0123456789")),
        ("another body", signed(body(version="6"))),
        ("another delivery", signed(body()) | {"x_mlflow_delivery_id": "d2"}),
        ("another time", signed(body()) | {"x_mlflow_timestamp": str(NOW - 1)}),
        ("too old", signed(body(), at=NOW - 301)),
        ("too new", signed(body(), at=NOW + 301)),
        ("no time", signed(body()) | {"x_mlflow_timestamp": "soon"}),
        ("another version", signed(body()) | {"x_mlflow_signature": signed(body())["x_mlflow_signature"][1:]}),
        ("the headers of Standard Webhooks", {"webhook_id": "d1", "webhook_timestamp": str(NOW)}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_anything_else_is_not(said: str, headers: dict[str, str], deliver: Deliver, verify: Verify) -> None:
    with pytest.raises(NotAuthentic):
        verify(deliver("mlflow", body(), **headers))


def test_of_two_secrets_either_will_do_and_a_short_one_never(deliver: Deliver, verify: Verify) -> None:
    delivery = deliver("mlflow", body(), **signed(body()))
    verify(delivery, [b"the-next-secret-0123456789", SECRET])
    with pytest.raises(NotAuthentic):
        verify(deliver("mlflow", body(), **signed(body(), secret=b"short")), [b"short"])


def test_a_repeated_delivery_is_one_event_and_a_second_move_is_another(deliver: Deliver, read: Read) -> None:
    first, again, other = (
        read(deliver("mlflow", body(), **signed(body(), delivery=one, at=at)))
        for one, at in (("d1", NOW), ("d1", NOW + 60), ("d2", NOW))
    )
    assert first.transport_key == again.transport_key != other.transport_key
    assert first.events[0].identity == again.events[0].identity != other.events[0].identity


def test_a_version_is_made_once(deliver: Deliver, read: Read) -> None:
    made = [read(deliver("mlflow", body("model_version"), x_mlflow_delivery_id=one)).events[0] for one in ("d1", "d2")]
    assert {(one.type, one.subject) for one in made} == {("model.version", "income-classifier/5")}
    assert made[0].identity == made[1].identity


def test_our_own_word_of_a_move_has_the_fields_of_the_registrys(deliver: Deliver, read: Read) -> None:
    (told,) = read(deliver("mlflow", body())).events
    move = Move(
        model="income-classifier", alias="champion", version=5, previous=4, by="ada", promotion="p", run_key="r"
    )
    ours = alias_event(move, "p", told.time)
    assert (ours.type, ours.subject, set(ours.data)) == (told.type, told.subject, set(told.data))
    assert (ours.data["previous"], ours.run_key, told.data["previous"], told.run_key) == (4, "r", 0, "")


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        (body(name="somebody-elses"), Verdict.IGNORED, Reason.NOT_FOR_US),
        (body("model_version", name="somebody-elses"), Verdict.IGNORED, Reason.NOT_FOR_US),
        (body("model_version_tag", "set"), Verdict.IGNORED, Reason.KNOWN_AND_IGNORED),
        (body("prompt_alias"), Verdict.IGNORED, Reason.KNOWN_AND_IGNORED),
        (body("model_version_alias", "renamed"), Verdict.QUARANTINED, Reason.NOT_UNDERSTOOD),
    ],
)
def test_what_starts_nothing_says_why(
    text: str, verdict: Verdict, reason: Reason, deliver: Deliver, read: Read
) -> None:
    (found,) = read(deliver("mlflow", text)).events
    assert (found.verdict, found.reason) == (verdict, reason)


@pytest.mark.parametrize(
    "changes",
    [{"version": 5}, {"version": "0"}, {"version": "five"}, {"version": "99999999999"}, {"alias": ""}, {"name": None}],
    ids=str,
)
def test_a_move_without_its_names_is_not_understood(changes: dict[str, Any], deliver: Deliver, read: Read) -> None:
    with pytest.raises(NotUnderstood):
        read(deliver("mlflow", body(**changes)))
