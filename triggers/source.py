"""What every source type is: its name, its settings, how it proves a delivery and how it reads one.

Filled in by each file of `triggers.sources`; the service takes the door's limits from it, rules loading the schemas.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from triggers.event import Delivery, Event, Reading, Verdict, key_of
from triggers.reason import Reason
from triggers.schema import EventSchema

MIB = 1 << 20
JSON = "application/json"

#: Every source's settings are read as written: no conversion, no unknown key.
STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
#: A source without a secret says so in the file.
Auth = Literal["none"] | None


@dataclass(frozen=True, kw_only=True)
class SourceType:
    """A kind of sender. `config` is what `verify` and `read` get as their first argument."""

    name: str
    config: type[BaseModel]
    verify: Callable[[Any, Delivery, Sequence[bytes]], None]  #: raises NotAuthentic; looks at bytes and headers only
    read: Callable[[Any, Delivery], Reading]  #: raises NotUnderstood, and nothing else
    types: Mapping[str, EventSchema]  #: what its accepted events carry, by event type
    body_limit: int = MIB  #: bytes
    content_types: frozenset[str] = frozenset({JSON})


def schema(fields: Mapping[str, tuple[str, str]], sample: Mapping[str, Any]) -> EventSchema:
    """From field → (type word, text)."""
    return EventSchema(
        fields={name: word for name, (word, _) in fields.items()},
        texts={name: text for name, (_, text) in fields.items()},
        sample=sample,
    )


def ignored(event_type: str, subject: str, time: datetime, reason: Reason, *key: object) -> Event:
    """An event that starts nothing. Its identity is its own: it must never stand in for the accepted one."""
    return Event(
        type=event_type,
        subject=subject,
        time=time,
        data={},
        identity=key_of("ignored", event_type, *key),
        verdict=Verdict.IGNORED,
        reason=reason,
    )


def quarantined(event_type: str, subject: str, time: datetime, detail: str, *key: object) -> Event:
    """An event that a person has to look at; its bytes are in the delivery."""
    return Event(
        type=event_type,
        subject=subject,
        time=time,
        data={},
        identity=key_of("quarantined", event_type, *key),
        verdict=Verdict.QUARANTINED,
        reason=Reason.NOT_UNDERSTOOD,
        detail=detail,
    )
