"""The words of the story: a delivery arrives, a source reads it, events come out.

Made by `triggers.sources`, stored by `service.flow.receive`, matched by `triggers.rules`. Plain frozen values:
no I/O, no clock.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from triggers.reason import Reason


class Verdict(StrEnum):
    """What the source made of one fact in a delivery."""

    ACCEPTED = "accepted"  #: rules may match it
    IGNORED = "ignored"  #: known, and starts nothing on purpose
    QUARANTINED = "quarantined"  #: authentic but not understood; kept for a person to look at


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One arrival of bytes, by one transport, not yet trusted."""

    source: str  #: name of the configured source
    headers: Mapping[str, str]  #: names in lower case
    body: bytes
    received_at: datetime  #: aware, UTC


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact that happened once: the CloudEvents attributes that its source fills, and how to know it again."""

    type: str  #: e.g. `object.created`; on the wire with the prefix `io.kfp-triggers.`
    subject: str
    time: datetime  #: when it happened, aware, UTC
    data: Mapping[str, Any]  #: the fields of contracts; missing optional text is "", never None
    identity: str = ""  #: the same fact by any transport has the same one, unique within its source
    stream: str = ""  #: instead of an identity: what `position` is the latest value of (a Git ref) ...
    position: str = ""  #: ... and that value (a sha). A repeat of the latest position is the same event
    verdict: Verdict = Verdict.ACCEPTED
    reason: Reason | None = None  #: why it is ignored or quarantined
    detail: str = ""  #: the same for a person, without echo of the input
    run_key: str = ""  #: run key that made this fact, if the fact itself says so (object metadata)

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("an event's time needs a time zone")
        if bool(self.identity) == bool(self.stream):
            raise ValueError("an event has either an identity or a stream with a position")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a source made of one delivery."""

    transport_key: str  #: exact repeats of one notification have the same one, unique within the source
    events: Sequence[Event] = field(default_factory=tuple)


def key_of(*parts: object) -> str:
    """A stable key: sha256 over the parts, each with its length before it so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def rfc3339(moment: datetime) -> str:
    """The one text form of a time: UTC, microseconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
