"""A run's life: its states are planned when it begins, and read off the clock whenever somebody asks.

A timeline is a list of [at, state, noted]: the state is in force from `at`; the history shows it from `noted` on, which
is later for CANCELING, as with the real server. Nothing here reads a clock.
"""

from typing import Any

from kfpstub.store import Row

TERMINAL = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
ENDS = {"succeed": "SUCCEEDED", "fail": "FAILED", "skip": "SKIPPED", "cancel": "CANCELED", "pause": "PAUSED"}
OUTCOMES = {*ENDS, "hang", "run", "nostate", "reject"}

NEVER = 1e12

Timeline = list[list[Any]]


def planned(now: float, script: Row) -> Timeline:
    """From PENDING on. `hang` stays so, `run` stays RUNNING, `nostate` loses its state, `reject` fails with no task."""
    outcome = script["outcome"]
    begun = now + script["pending"]
    first: Timeline = [[now, "PENDING", now]]
    if outcome == "hang":
        return first
    if outcome in {"nostate", "reject"}:
        lost: Timeline = [*first, [begun, None, begun]]
        ended = begun + script["running"]
        return lost if outcome == "nostate" else [*lost, [ended, "FAILED", ended]]
    if script.get("big"):
        first.append([now + script["pending"] / 2, None, now + script["pending"] / 2])
    return first + running(begun, script)


def running(begun: float, script: Row) -> Timeline:
    """From RUNNING on."""
    if script["outcome"] not in ENDS:
        return [[begun, "RUNNING", begun]]
    ended = begun + script["running"]
    return [[begun, "RUNNING", begun], [ended, ENDS[script["outcome"]], ended]]


def current(timeline: Timeline, now: float) -> Any:
    """The state in force, None included."""
    state = timeline[0][1]
    for at, name, _ in timeline:
        if at > now:
            break
        state = name
    return state


def finished(timeline: Timeline, now: float) -> float:
    """When it ended, or 0 (1970) while it has not."""
    ended = 0.0
    for at, name, _ in timeline:
        if at > now:
            break
        ended = at if name in TERMINAL else 0.0
    return ended


def passed(timeline: Timeline, now: float) -> Timeline:
    """What has happened until now."""
    return [entry for entry in timeline if entry[0] <= now] or timeline[:1]


def history(timeline: Timeline, now: float) -> list[tuple[float, Any]]:
    """The noted states with the time of the note."""
    return [(noted, name) for _, name, noted in timeline if noted <= now]


def reported(timeline: Timeline, now: float) -> bool:
    """Whether a workflow has been reported yet: without one there is nothing to retry and no task to show."""
    return any(name in {"RUNNING", *TERMINAL} for _, name in history(timeline, now))


def terminated(timeline: Timeline, now: float, script: Row) -> Timeline:
    """CANCELING now, FAILED later: the real server never says CANCELED. Below zero, CANCELING stays.

    A history may lack it (`quiet_cancel`): the server notes what is reported to it, and that may be the end already.
    """
    seconds = script["canceling"]
    if seconds < 0:
        return [*passed(timeline, now), [now, "CANCELING", NEVER]]
    ended = now + seconds
    noted = NEVER if script["quiet_cancel"] else ended
    return [*passed(timeline, now), [now, "CANCELING", noted], [ended, "FAILED", ended]]


def retried(timeline: Timeline, now: float, script: Row) -> Timeline:
    """RUNNING again under the same id; the history goes on."""
    again = script | {"outcome": script["retry"]}
    return passed(timeline, now) + running(now, again)
