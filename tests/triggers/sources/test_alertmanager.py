"""Alerts."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from triggers.errors import NotAuthentic, NotUnderstood
from triggers.event import Delivery, Reading, Verdict

Captured = Callable[[str, str], Delivery]
Read = Callable[[Delivery], Reading]


def _body(delivery: Delivery) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(delivery.body)
    return found


def _with(delivery: Delivery, body: Any, *, seconds: int = 0) -> Delivery:
    raw = json.dumps(body).encode()
    at = delivery.received_at + timedelta(seconds=seconds)
    return Delivery(source=delivery.source, headers=delivery.headers, body=raw, received_at=at)


def _altered(delivery: Delivery, **changes: Any) -> Delivery:
    body = _body(delivery)
    body["alerts"][0] |= changes
    return _with(delivery, body)


def test_a_repeat_is_told_again_and_is_the_same_event(captured: Captured, read: Read) -> None:
    first = captured("alertmanager", "another-firing")
    again = captured("alertmanager", "another-firing-repeated")
    assert first.body == again.body
    hours_later = _with(again, _body(again), seconds=4 * 3600)
    readings = [read(_with(first, _body(first))), read(hours_later)]
    assert readings[0].transport_key != readings[1].transport_key
    assert readings[0].events[0].identity == readings[1].events[0].identity


def test_two_peers_of_a_cluster_tell_one_notification(captured: Captured, read: Read) -> None:
    first = captured("alertmanager", "firing")
    same = Delivery(
        source="alertmanager",
        headers=first.headers,
        body=first.body,
        received_at=first.received_at + timedelta(seconds=20),
    )
    assert read(first).transport_key == read(same).transport_key


def test_an_alert_has_one_identity_whatever_group_it_is_told_with(captured: Captured, read: Read) -> None:
    [alone] = read(captured("alertmanager", "firing")).events
    together = read(captured("alertmanager", "two-firing")).events[0]
    assert alone.identity == together.identity
    edited = _body(captured("alertmanager", "firing")) | {"groupKey": "{}/{new route}:{}"}
    assert read(_with(captured("alertmanager", "firing"), edited)).events[0].identity == alone.identity


def test_firing_and_resolved_are_two_events_of_one_episode(captured: Captured, read: Read) -> None:
    [fired] = read(captured("alertmanager", "firing")).events
    resolved = read(captured("alertmanager", "one-resolved-one-firing")).events[0]
    assert (fired.type, resolved.type) == ("alert.firing", "alert.resolved")
    assert fired.identity != resolved.identity
    assert fired.subject == resolved.subject
    assert fired.data["starts_at"] == resolved.data["starts_at"]
    assert (fired.data["ends_at"], resolved.data["ends_at"]) == ("", "2026-11-21T07:50:37.120000Z")


def test_the_next_episode_of_an_alert_is_another_event(captured: Captured, read: Read) -> None:
    delivery = captured("alertmanager", "firing")
    [first], [second] = (read(one).events for one in (delivery, _altered(delivery, startsAt="2026-11-22T00:00:00Z")))
    assert first.identity != second.identity
    assert first.subject == second.subject


def test_alerts_that_were_left_out_are_counted(captured: Captured, read: Read) -> None:
    delivery = captured("alertmanager", "firing")
    assert read(_with(delivery, _body(delivery) | {"truncatedAlerts": 3})).events[0].data["truncated"] == 3


def test_fields_of_a_newer_alertmanager_change_nothing(captured: Captured, read: Read) -> None:
    delivery = captured("alertmanager", "firing")
    newer = _body(delivery) | {"notification_reason": "first notification"}
    assert read(_with(delivery, newer)).events == read(delivery).events


def test_nanoseconds_and_zones_are_understood(captured: Captured, read: Read) -> None:
    delivery = _altered(captured("alertmanager", "firing"), startsAt="2026-11-21T09:50:24.123456789+02:00")
    assert read(delivery).events[0].data["starts_at"] == "2026-11-21T07:50:24.123456Z"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "suppressed"},
        {"status": ["firing"]},
        {"fingerprint": ""},
        {"fingerprint": None},
        {"fingerprint": "f" * 65},
        {"startsAt": None},
        {"startsAt": "0001-01-01T00:00:00Z"},
        {"startsAt": "9999-12-31T23:59:59-23:00"},
        {"endsAt": "tomorrow"},
        {"status": "resolved"},
        {"labels": ["a"]},
        {"labels": {"a": {"b": 1}}},
        {"annotations": 1},
        {"generatorURL": {}},
    ],
    ids=repr,
)
def test_a_bad_alert_is_quarantined_and_leaves_the_others_alone(
    changes: dict[str, Any], captured: Captured, read: Read
) -> None:
    events = read(_altered(captured("alertmanager", "two-firing"), **changes)).events
    assert [event.verdict for event in events] == [Verdict.QUARANTINED, Verdict.ACCEPTED]


def test_what_prometheus_itself_sends_is_answered_with_a_hint(captured: Captured, read: Read) -> None:
    delivery = captured("alertmanager", "firing")
    with pytest.raises(NotUnderstood, match="let Prometheus send to Alertmanager"):
        read(_with(delivery, [{"labels": {"alertname": "x"}, "startsAt": "2026-11-21T07:50:24Z"}]))


@pytest.mark.parametrize(
    "changes", [{"version": "3"}, {"version": 4}, {"receiver": None}, {"alerts": {}}, {"truncatedAlerts": -1}], ids=repr
)
def test_another_body_is_not_understood(changes: dict[str, Any], captured: Captured, read: Read) -> None:
    delivery = captured("alertmanager", "firing")
    with pytest.raises(NotUnderstood):
        read(_with(delivery, _body(delivery) | changes))


def test_a_token_of_another_source_is_refused(captured: Captured, verify: Callable[..., None]) -> None:
    with pytest.raises(NotAuthentic):
        verify(captured("alertmanager", "firing"), [b"uploads-token-0123456789"])
