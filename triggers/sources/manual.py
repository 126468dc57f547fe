"""A person, or a person's script, fires a rule by name.

`kfp-triggers fire` makes such an event without HTTP; with a source of this type a script can post
`{"id": "<its own>", "rule": "retrain", "by": "ada"}`. The same id twice is one event.
"""

from collections.abc import Sequence

from pydantic import BaseModel

from triggers.event import Delivery, Event, Reading, key_of
from triggers.payload import json_object, moment, text, token
from triggers.signature import check_bearer
from triggers.source import STRICT, Auth, SourceType, schema


class Config(BaseModel):
    """`type: manual`."""

    model_config = STRICT

    auth: Auth = None


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """A bearer token."""
    if config.auth != "none":
        check_bearer(delivery, secrets)


def read(config: Config, delivery: Delivery) -> Reading:  # noqa: ARG001  # every source is called alike
    """One rule, named by its subject."""
    body = json_object(delivery.body)
    key = key_of("manual", token(body, "id", longest=128))
    if body.get("scheduled_for"):
        moment(body, "scheduled_for")
    event = Event(
        type="manual.fired",
        subject=token(body, "rule", longest=63),
        time=delivery.received_at,
        data={"scheduled_for": text(body, "scheduled_for"), "by": text(body, "by")},
        identity=key,
    )
    return Reading(transport_key=key, events=(event,))


_FIELDS = {
    "scheduled_for": ("string", "the time that it was meant for; empty unless it was said"),
    "by": ("string", "who fired it, by their own word"),
}

TYPE = SourceType(
    name="manual",
    config=Config,
    verify=verify,
    read=read,
    types={"manual.fired": schema(_FIELDS, {"scheduled_for": "", "by": "ada"})},
)
