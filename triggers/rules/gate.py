"""A rule's limits: whether a run that is wanted may be made now.

Called by `decision` last, when everything else holds. It never counts or takes a slot: it is told how many are taken,
and a run that waits for one is a run already (the store grants the slots).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from triggers.event import rfc3339
from triggers.reason import Reason
from triggers.rules.model import Budget, Limits, WhenBusy

ASK_AGAIN = timedelta(seconds=30)
QUIET = timedelta(hours=1)  #: without firing, after which a trouble is over, of a rule without a cooldown
MAX_DEPTH = 5  #: of a chain of causes


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One time of an alert: from when it fired until it was resolved."""

    began: datetime
    ended: datetime | None  #: None: it still fires
    told: datetime | None = None  #: when it was last told of, where its end never was: so it counts until a while after


@dataclass(frozen=True, kw_only=True)
class History:
    """What the store knows of the rule, of its lock and of the event."""

    last_run_at: datetime | None = None  #: when the rule last made a run
    last_success: datetime | None = None  #: when a run of it last succeeded
    busy: int = 0  #: runs that hold or wait for a slot of the rule's lock
    runs: tuple[datetime, ...] = ()  #: when the rule made its latest runs, the newest first: as many as its budget
    tries: tuple[datetime, ...] = ()  #: the same of its runs for alerts under this lock: as many as its tries
    episodes: tuple[Episode, ...] = ()  #: of the alerts that it made these runs for
    resolved: bool = False  #: the alert that fired was resolved since
    causes: tuple[str, ...] = ()  #: the rules whose runs led to this event, oldest first


@dataclass(frozen=True)
class Held:
    """The run may not be made: for ever, or until it is asked about again."""

    reason: Reason
    detail: str
    ask_again_at: datetime | None  #: None: for ever


def gate(limits: Limits, history: History, now: datetime, *, patient: bool, asked: bool = False) -> Held | None:
    """None when it may. A `patient` event (a firing alert) is held and asked about again; any other is skipped.

    Tries are counted when nothing else holds it, so that the last run had its time to help; what a person `asked` for
    is held by all but them.
    """
    if limits.cooldown is not None and history.last_run_at is not None:
        over = history.last_run_at + limits.cooldown
        if now < over:
            return Held(Reason.COOLDOWN, "the rule's cooldown is not over", over if patient else None)
    if limits.lock is not None and limits.when_busy is WhenBusy.SKIP and history.busy >= limits.max:
        detail = f"{history.busy} of {limits.max} slots are taken"
        return Held(Reason.BUSY, detail, now + ASK_AGAIN if patient else None)
    if limits.tries is not None and not asked and (since := exhausted(limits, history, now)) is not None:
        if history.busy:
            return Held(Reason.BUSY, "its last try is under way", now + ASK_AGAIN)
        return Held(Reason.TRIES_EXHAUSTED, _help_needed(limits.tries, since), None)
    if limits.budget is not None and (until := _spent_until(limits.budget, history.runs, now)) is not None:
        detail = f"{limits.budget.runs} runs are as many as the rule's budget allows"
        return Held(Reason.BUDGET, detail, until if patient else None)
    return None


def exhausted(limits: Limits, history: History, now: datetime) -> datetime | None:
    """Since when the trouble goes on that all the tries did not end; None while there are tries left."""
    if limits.tries is None or len(history.tries) < limits.tries:
        return None
    since = trouble_since(history.episodes, limits.cooldown or QUIET, now)
    return since if history.tries[limits.tries - 1] >= since else None


def trouble_since(episodes: Sequence[Episode], quiet: timedelta, now: datetime) -> datetime:
    """When the alerts began that fire now, an alert that comes back within the quiet time being the same trouble."""
    since = now
    ends = [(_end(one, quiet, now), one.began) for one in episodes]
    for ended, began in sorted(ends, reverse=True):
        if since - ended > quiet:
            break
        since = min(since, began)
    return since


def _end(one: Episode, quiet: timedelta, now: datetime) -> datetime:
    """Until when it counts: a `resolved` that got lost must not make one alert of old a trouble without end."""
    ended = one.ended or now
    return ended if one.told is None else min(ended, one.told + quiet)


def _help_needed(tries: int, since: datetime) -> str:
    return (
        f"{tries} runs since {rfc3339(since)} did not end the alert: more of them will not either. Look at the data "
        "and at what became of the candidates; `kfp-triggers fire` runs the rule all the same, and its tries count "
        "anew when the alert has been resolved for a while"
    )


def _spent_until(budget: Budget, runs: tuple[datetime, ...], now: datetime) -> datetime | None:
    """When the budget's oldest run leaves the stretch of time; None when there is room for one more."""
    if len(runs) < budget.runs:
        return None
    over = runs[budget.runs - 1] + budget.per
    return over if now < over else None


def loops(rule_name: str, causes: tuple[str, ...]) -> str:
    """Why a run of this rule would feed itself, or ""."""
    if rule_name in causes:
        return "the event comes from a run of this very rule"
    return f"more than {MAX_DEPTH} rules led to the event" if len(causes) > MAX_DEPTH else ""
