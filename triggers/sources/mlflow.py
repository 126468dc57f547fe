"""MLflow's model registry: an alias was moved, a version was made.

https://mlflow.org/docs/latest/ml/webhooks/. MLflow signs like Standard Webhooks, under header names of its own, and
keeps one delivery id and one time over its retries. It tells of an alias neither from where it was moved nor by whom.
Also where a move that the service made itself becomes the event that rules wait for: `alias_event`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of
from triggers.payload import json_object, mapping, moment, token
from triggers.reason import Reason
from triggers.signature import check_mlflow_webhook
from triggers.source import STRICT, Auth, SourceType, ignored, quarantined, schema

ALIAS, VERSION = "model.alias", "model.version"
#: Every other event of MLflow's webhooks, as (entity, action).
IGNORED = frozenset(
    {
        ("registered_model", "created"),
        ("model_version_tag", "set"),
        ("model_version_tag", "deleted"),
        ("model_version_alias", "deleted"),
        ("prompt", "created"),
        ("prompt_version", "created"),
        ("prompt_tag", "set"),
        ("prompt_tag", "deleted"),
        ("prompt_version_tag", "set"),
        ("prompt_version_tag", "deleted"),
        ("prompt_alias", "created"),
        ("prompt_alias", "deleted"),
        ("budget_policy", "exceeded"),
    }
)
_MAX_VERSION = 2**31 - 1


class Config(BaseModel):
    """`type: mlflow`."""

    model_config = STRICT

    models: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1)]
    auth: Auth = None


@dataclass(frozen=True, kw_only=True)
class Move:
    """An alias that was moved, as far as it is known."""

    model: str
    alias: str
    version: int
    previous: int = 0  #: the version before; 0: there was none, or nobody knows
    by: str = ""  #: who moved it
    reason: str = ""  #: why, for a person
    promotion: str = ""  #: the service's own record of the move
    run_key: str = ""  #: of the run whose verdict it was


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """The secret that the webhook was made with."""
    if config.auth != "none":
        check_mlflow_webhook(delivery, secrets)


def alias_event(move: Move, identity: str, time: datetime) -> Event:
    """The event of a moved alias. The same identity is the same move, whoever tells of it."""
    data = {
        "model": move.model,
        "alias": move.alias,
        "version": move.version,
        "previous": move.previous,
        "by": move.by,
        "reason": move.reason,
        "promotion": move.promotion,
    }
    subject = f"{move.model}@{move.alias}"
    return Event(type=ALIAS, subject=subject, time=time, data=data, identity=identity, run_key=move.run_key)


def read(config: Config, delivery: Delivery) -> Reading:
    """One event for each delivery."""
    body = json_object(delivery.body)
    kind = (token(body, "entity", longest=64), token(body, "action", longest=64))
    told_once = delivery.headers.get("x-mlflow-delivery-id") or hashlib.sha256(delivery.body).hexdigest()
    key = key_of("mlflow", told_once)
    return Reading(transport_key=key, events=(_event(config, delivery, body, kind, key),))


def _event(config: Config, delivery: Delivery, body: dict[str, Any], kind: tuple[str, str], key: str) -> Event:
    if kind in IGNORED:
        return ignored("model.other", ".".join(kind), delivery.received_at, Reason.KNOWN_AND_IGNORED, key)
    if kind not in {("model_version_alias", "created"), ("model_version", "created")}:
        detail = "entity and action name no event that this source knows"
        return quarantined("model.other", delivery.source, delivery.received_at, detail, key)
    told, time = mapping(body, "data"), moment(body, "timestamp")
    model, version = token(told, "name", longest=256), _version(told)
    if kind == ("model_version_alias", "created"):
        move = Move(model=model, alias=token(told, "alias", longest=256), version=version)
        found = alias_event(move, key_of(ALIAS, key), time)
    else:
        data = {"model": model, "alias": "", "version": version}
        identity = key_of(VERSION, model, version)
        found = Event(type=VERSION, subject=f"{model}/{version}", time=time, data=data, identity=identity)
    if model in config.models:
        return found
    return ignored(found.type, found.subject, delivery.received_at, Reason.NOT_FOR_US, key)


def _version(told: dict[str, Any]) -> int:
    """MLflow writes a version's number as text."""
    text = token(told, "version", longest=10)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MAX_VERSION):
        raise NotUnderstood("version is not the number of a version")
    return int(text)


_NAMES = {"model": ("string", "its name in the registry"), "alias": ("string", "e.g. champion")}
_MOVED = _NAMES | {
    "version": ("int", "where the alias points to now"),
    "previous": ("int", "where it pointed to before; 0 when there was none, or when only MLflow told of the move"),
    "by": ("string", "who moved it; empty when only MLflow told of it"),
    "reason": ("string", "why, in words for a person; empty when only MLflow told of it"),
    "promotion": ("string", "the id under `kfp-triggers models show`; empty when only MLflow told of it"),
}
_MADE = _NAMES | {"alias": ("string", "always empty"), "version": ("int", "its number")}

TYPE = SourceType(
    name="mlflow",
    config=Config,
    verify=verify,
    read=read,
    types={
        ALIAS: schema(
            _MOVED,
            {
                "model": "income-classifier",
                "alias": "champion",
                "version": 5,
                "previous": 4,
                "by": "ada",
                "reason": "accuracy is 0.021 better on the same 4,000 rows",
                "promotion": "01KAJ5V6Q0Z3M7F2T9R8XW4C1B",
            },
        ),
        VERSION: schema(_MADE, {"model": "income-classifier", "alias": "", "version": 5}),
    },
)
