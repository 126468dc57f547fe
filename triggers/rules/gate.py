"""A rule's limits: whether a run that is wanted may be made now.

Called by `decision` last, when everything else holds. It never counts or takes a slot: it is told how many are taken,
and a run that waits for one is a run already (the store grants the slots).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from triggers.reason import Reason
from triggers.rules.model import Limits, WhenBusy

ASK_AGAIN = timedelta(seconds=30)
MAX_DEPTH = 5  #: of a chain of causes


@dataclass(frozen=True, kw_only=True)
class History:
    """What the store knows of the rule, of its lock and of the event."""

    last_run_at: datetime | None = None  #: when the rule last made a run
    last_success: datetime | None = None  #: when a run of it last succeeded
    busy: int = 0  #: runs that hold or wait for a slot of the rule's lock
    resolved: bool = False  #: the alert that fired was resolved since
    causes: tuple[str, ...] = ()  #: the rules whose runs led to this event, oldest first


@dataclass(frozen=True)
class Held:
    """The run may not be made: for ever, or until it is asked about again."""

    reason: Reason
    detail: str
    ask_again_at: datetime | None  #: None: for ever


def gate(limits: Limits, history: History, now: datetime, *, patient: bool) -> Held | None:
    """None when it may. A `patient` event (a firing alert) is held and asked about again; any other is skipped."""
    if limits.cooldown is not None and history.last_run_at is not None:
        over = history.last_run_at + limits.cooldown
        if now < over:
            return Held(Reason.COOLDOWN, "the rule's cooldown is not over", over if patient else None)
    if limits.lock is not None and limits.when_busy is WhenBusy.SKIP and history.busy >= limits.max:
        detail = f"{history.busy} of {limits.max} slots are taken"
        return Held(Reason.BUSY, detail, now + ASK_AGAIN if patient else None)
    return None


def loops(rule_name: str, causes: tuple[str, ...]) -> str:
    """Why a run of this rule would feed itself, or ""."""
    if rule_name in causes:
        return "the event comes from a run of this very rule"
    return f"more than {MAX_DEPTH} rules led to the event" if len(causes) > MAX_DEPTH else ""
