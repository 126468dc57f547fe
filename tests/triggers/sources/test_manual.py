"""A rule fired by name."""

from collections.abc import Callable

import pytest

from triggers.errors import NotAuthentic, NotUnderstood
from triggers.event import Delivery, Reading

Deliver = Callable[..., Delivery]
Read = Callable[[Delivery], Reading]

BODY = '{"id": "nightly-2026-11-21", "rule": "retrain", "by": "ada"}'


def test_the_rule_is_the_subject(deliver: Deliver, read: Read) -> None:
    [event] = read(deliver("manual", BODY)).events
    assert (event.type, event.subject) == ("manual.fired", "retrain")
    assert event.data == {"scheduled_for": "", "by": "ada"}


def test_the_same_id_is_the_same_event(deliver: Deliver, read: Read) -> None:
    first, again = (read(deliver("manual", body)) for body in (BODY, BODY.replace(" ", "")))
    other = read(deliver("manual", BODY.replace("21", "22")))
    assert first.events[0].identity == again.events[0].identity != other.events[0].identity


@pytest.mark.parametrize(
    "body",
    ["{}", '{"rule": "a"}', '{"id": "1"}', '{"id": 1, "rule": "a"}', '{"id": "1", "rule": "a", "scheduled_for": 7}'],
)
def test_a_body_without_id_or_rule_is_not_understood(body: str, deliver: Deliver, read: Read) -> None:
    with pytest.raises(NotUnderstood):
        read(deliver("manual", body))


def test_a_bearer_token_is_needed(deliver: Deliver, verify: Callable[..., None]) -> None:
    verify(deliver("manual", BODY, authorization="Bearer manual-token-0123456789"))
    with pytest.raises(NotAuthentic):
        verify(deliver("manual", BODY))
