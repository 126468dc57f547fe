"""Prometheus Alertmanager: webhook version 4, one event for each alert of the group.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config. A body may repeat what an earlier one said, on
purpose (`repeat_interval`): an alert's episode has one identity however often it is told. A `payload:` template that
changes the body is not understood.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of, rfc3339
from triggers.payload import json_value, moment, sequence, text, text_map, token, whole
from triggers.signature import check_bearer
from triggers.source import MIB, STRICT, Auth, SourceType, quarantined, schema

STATES = {"firing": "alert.firing", "resolved": "alert.resolved"}
#: Alertmanager gives no delivery id, and a wanted repeat has the very bytes of the first. Two identical bodies are one
#: notification (two peers of a cluster, a retry) within this many seconds; after it they are two tellings of one alert.
REPEAT_WINDOW = 60

_NO_TIME = "0001-01-01T00:00:00Z"  # Go's zero time: not ended


class Config(BaseModel):
    """`type: alertmanager`."""

    model_config = STRICT

    auth: Auth = None


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """`http_config.authorization` of the receiver."""
    if config.auth != "none":
        check_bearer(delivery, secrets)


def read(config: Config, delivery: Delivery) -> Reading:  # noqa: ARG001  # every source is called alike
    """All alerts of the notification, firing and resolved."""
    body = json_value(delivery.body)
    if isinstance(body, list):
        raise NotUnderstood(
            "a bare array is what Prometheus sends to Alertmanager: let Prometheus send to Alertmanager, and "
            "Alertmanager's webhook_configs to this address"
        )
    if not isinstance(body, dict) or body.get("version") != "4":
        raise NotUnderstood("not an Alertmanager notification of version 4")
    token(body, "receiver")
    whole(body, "truncatedAlerts")
    digest = hashlib.sha256(delivery.body).hexdigest()
    events = [_event(delivery, body, alert, (digest, i)) for i, alert in enumerate(sequence(body, "alerts"))]
    window = int(delivery.received_at.timestamp()) // REPEAT_WINDOW
    return Reading(transport_key=key_of("alertmanager", digest, window), events=tuple(events))


def _event(delivery: Delivery, body: dict[str, Any], alert: Any, place: tuple[str, int]) -> Event:
    """One bad alert leaves the others of the group alone."""
    try:
        if not isinstance(alert, dict):
            raise NotUnderstood("an alert is not an object")
        return _alert(body, alert)
    except NotUnderstood as error:
        return quarantined("alert.other", delivery.source, delivery.received_at, error.detail, *place)


def _alert(body: dict[str, Any], alert: dict[str, Any]) -> Event:
    status = alert.get("status")
    if status not in ("firing", "resolved"):
        raise NotUnderstood("status is neither firing nor resolved")
    labels = text_map(alert, "labels")
    receiver, fingerprint = token(body, "receiver"), token(alert, "fingerprint", longest=64)
    starts_at = moment(alert, "startsAt")
    ends_at = _ended(alert)
    if status == "resolved" and ends_at is None:
        raise NotUnderstood("endsAt of a resolved alert is missing")
    data = {
        "alertname": labels.get("alertname", ""),
        "labels": labels,
        "annotations": text_map(alert, "annotations"),
        "starts_at": rfc3339(starts_at),
        "ends_at": rfc3339(ends_at) if ends_at else "",
        "fingerprint": fingerprint,
        "receiver": receiver,
        "group_key": text(body, "groupKey"),
        "generator_url": text(alert, "generatorURL"),
        "truncated": whole(body, "truncatedAlerts"),
    }
    return Event(
        type=STATES[status],
        subject=fingerprint,
        time=ends_at if status == "resolved" and ends_at else starts_at,
        data=data,
        # Not the group key: it holds the route's path and changes when the configuration is edited.
        identity=key_of("alert", receiver, fingerprint, rfc3339(starts_at), status),
    )


def _ended(alert: dict[str, Any]) -> datetime | None:
    return None if alert.get("endsAt") in (None, "", _NO_TIME) else moment(alert, "endsAt")


_FIELDS = {
    "alertname": ("string", "the label alertname"),
    "labels": ("map", "every label; one that some alerts lack is read with default(event.labels, 'name', '')"),
    "annotations": ("map", "every annotation"),
    "starts_at": ("string", "when it began to fire"),
    "ends_at": ("string", "when it was resolved; empty while it fires"),
    "fingerprint": ("string", "Alertmanager's hash of the labels: the same in every episode"),
    "receiver": ("string", "the receiver of Alertmanager's configuration"),
    "group_key": ("string", "the group that it was notified with"),
    "generator_url": ("string", "the expression in Prometheus"),
    "truncated": ("int", "how many alerts of the group Alertmanager left out (max_alerts)"),
}
_FIRING = {
    "alertname": "FeatureDrift",
    "labels": {"alertname": "FeatureDrift", "feature": "age", "model": "income-classifier", "severity": "page"},
    "annotations": {"summary": "age drifted"},
    "starts_at": "2026-11-21T07:50:24.111000Z",
    "ends_at": "",
    "fingerprint": "e5547ac1da9a14ee",
    "receiver": "kfp-triggers",
    "group_key": '{}:{alertname="FeatureDrift"}',
    "generator_url": "http://prometheus.example:9090/graph?g0.expr=drift%3E0.2&g0.tab=1",
    "truncated": 0,
}

TYPE = SourceType(
    name="alertmanager",
    config=Config,
    verify=verify,
    read=read,
    types={
        "alert.firing": schema(_FIELDS, _FIRING),
        "alert.resolved": schema(_FIELDS, _FIRING | {"ends_at": "2026-11-21T07:50:37.120000Z"}),
    },
    body_limit=8 * MIB,  # a group of thousands of alerts is one body
)
