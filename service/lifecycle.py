"""Every state of a run and every allowed move: nobody else assigns a state.

`service.store.runs.move` asks `check` before it writes; the watchers ask `TERMINAL`. A skip is a decision's outcome
and no state here.
"""

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a run is."""

    WAITING = "waiting"  #: for a slot of its lock
    READY = "ready"  #: to be submitted
    SUBMITTING = "submitting"  #: the intent is committed; the backend may or may not have it
    SUBMITTED = "submitted"  #: the backend has it
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"  #: the backend no longer knows it
    SUPERSEDED = "superseded"  #: a newer one took its place before it started
    DEAD = "dead"  #: given up before the backend ever had it
    DISCARDED = "discarded"  #: it was dead, and a person has put it away


TERMINAL = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.GONE, State.SUPERSEDED, State.DEAD, State.DISCARDED},
)
OPEN = frozenset(State) - TERMINAL
IN_BACKEND = frozenset({State.SUBMITTED, State.RUNNING})

_ENDS = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.GONE})
MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.READY, State.CANCELLED, State.SUPERSEDED, State.DEAD}),
    # To submitted when its backend turns out to have it from a try that seemed to have failed.
    State.READY: frozenset({State.SUBMITTING, State.SUBMITTED, State.CANCELLED, State.SUPERSEDED, State.DEAD}),
    # Back to ready only when the backend surely does not have it.
    State.SUBMITTING: frozenset({State.SUBMITTED, State.READY, State.DEAD, State.CANCELLED}),
    State.SUBMITTED: frozenset({State.RUNNING}) | _ENDS,
    State.RUNNING: _ENDS,
    # A backend's own retry takes an ended run back to running: terminal is not final there.
    State.FAILED: frozenset({State.RUNNING}),
    State.CANCELLED: frozenset({State.RUNNING}),
    State.DEAD: frozenset({State.DISCARDED}),
}

#: What KFP's words mean here (v2beta1 `state`, measured on 2.17). FAILED is CANCELLED instead where `state_history`
#: holds CANCELING: `terminate` goes CANCELING → FAILED, and CANCELED was never seen. A run that KFP could not store
#: whole has no state at all and never gets one.
OF_KFP: Mapping[str, State] = {
    "": State.SUBMITTED,
    "RUNTIME_STATE_UNSPECIFIED": State.SUBMITTED,
    "PENDING": State.SUBMITTED,
    "RUNNING": State.RUNNING,
    "PAUSED": State.RUNNING,
    "CANCELING": State.RUNNING,
    "SUCCEEDED": State.SUCCEEDED,
    "SKIPPED": State.SUCCEEDED,
    "FAILED": State.FAILED,
    "CANCELED": State.CANCELLED,
}


class ImpossibleMove(Exception):
    """A run was asked to move where the table does not lead."""


def check(before: State, after: State) -> None:
    """Raise ImpossibleMove unless the table allows it."""
    if after not in MOVES.get(before, frozenset()):
        raise ImpossibleMove(f"{before} → {after}")
