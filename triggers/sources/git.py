"""Plain Git: what our own `deploy/git/post-receive` sends from a server without webhooks.

The body is ours, so its version is checked; all refs of one push come in one delivery. The hook's spool may send it
days later, so there is no time window: the delivery's id is inside the signed body and makes a replay a duplicate.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, field_validator

from triggers import gitref
from triggers.answers import Answers
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of
from triggers.payload import flag, json_object, moment, sequence, text, texts, token
from triggers.reason import Reason
from triggers.signature import check_hmac
from triggers.source import STRICT, Auth, SourceType, ignored, quarantined

VERSION = 1
SIGNATURE_HEADER = "X-KFP-Triggers-Signature"

_DELIVERY = re.compile(r"[A-Za-z0-9-]{16,64}")


class Config(BaseModel):
    """`type: git`."""

    model_config = STRICT

    repositories: gitref.Repositories
    answers: Answers | None = None  #: with a `kind`, where the server behind the hook has such an API
    auth: Auth = None

    @field_validator("answers")
    @classmethod
    def _answers_name_their_kind(cls, found: Answers | None) -> Answers | None:
        if found is not None and found.kind is None:
            raise ValueError("needs a `kind`: whose API it is, github, gitlab or gitea")
        return found

    @field_validator("repositories")
    @classmethod
    def _packages_have_an_url(cls, found: dict[str, gitref.Repository]) -> dict[str, gitref.Repository]:
        if nowhere := [name for name, one in found.items() if one.packages and not one.url]:
            raise ValueError(f"{', '.join(nowhere)}: `packages` needs a `url` to take them from")
        return found


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """HMAC-SHA256 over the raw body."""
    if config.auth != "none":
        check_hmac(delivery, SIGNATURE_HEADER.lower(), secrets)


def read(config: Config, delivery: Delivery) -> Reading:
    """One event for each ref that the push moved."""
    payload = json_object(delivery.body)
    if payload.get("version") != VERSION or isinstance(payload["version"], bool):
        raise NotUnderstood(f"version is not {VERSION}: the hook and the service are of different releases")
    delivery_id = token(payload, "delivery")
    if not _DELIVERY.fullmatch(delivery_id):
        raise NotUnderstood("delivery is not an id")
    token(payload, "repository")
    moment(payload, "sent_at")
    updates = sequence(payload, "updates")
    if not updates:
        raise NotUnderstood("there are no updates")
    key = key_of("git", delivery_id)
    events = [_event(config, delivery, payload, place) for place in range(len(updates))]
    return Reading(transport_key=key, events=tuple(events))


def _event(config: Config, delivery: Delivery, payload: dict[str, Any], place: int) -> Event:
    """One bad update leaves the others of the push alone."""
    name, delivery_id, update = payload["repository"], payload["delivery"], payload["updates"][place]
    try:
        if not isinstance(update, dict):
            raise NotUnderstood("an update is not an object")
        ref = gitref.ref_of(update, "ref")
        found = gitref.configured(config.repositories, name, "")
        if found is None:
            return ignored("git.push", f"{name}@{ref}", delivery.received_at, Reason.NOT_FOR_US, delivery_id, ref)
        return gitref.event_of(_update(found, ref, update), moment(payload, "sent_at"))
    except NotUnderstood as error:
        return quarantined("git.other", delivery.source, delivery.received_at, error.detail, delivery_id, place)


def _update(found: tuple[str, str], ref: str, update: dict[str, Any]) -> gitref.Update:
    return gitref.Update(
        repository=found[0],
        clone_url=found[1],
        ref=ref,
        old=gitref.sha_of(update, "old"),
        new=gitref.sha_of(update, "new"),
        sha=gitref.sha_or_none(update.get("commit")),
        paths=texts(update, "paths"),
        paths_complete=not flag(update, "paths_left_out"),
        message=text(update, "message"),
        author=text(update, "author"),
        forced=flag(update, "forced"),
    )


TYPE = SourceType(
    name="git",
    config=Config,
    verify=verify,
    read=read,
    types=gitref.TYPES,
    body_limit=gitref.BODY_LIMIT,
)
