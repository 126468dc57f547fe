"""Named points at which a process can be made to die, fail or sleep: one at every arrow of the state machine.

For the fault suite alone: `KFP_TRIGGERS_FAILPOINT=name=kill|raise|sleep:SECONDS[@N]` acts on the N-th pass. Off, a
point is one look at a variable. Set by the environment alone, which `service.wiring` reads: no rule or request can.
"""

import itertools
import os
import re
import signal
import time
from collections.abc import Mapping

from service.errors import Refused

VARIABLE = "KFP_TRIGGERS_FAILPOINT"
POINTS = frozenset(
    {"writer.before_commit", "writer.after_commit", "door.before_2xx", "event.stored", "event.claimed", "event.decided"}
    | {"decision.asked_again", "lock.granted", "run.intent_written", "run.before_post", "run.after_post"}
    | {"run.id_stored", "run.adopted", "run.absent", "run.refused", "run.watched", "run.ended", "run.reports_read"}
    | {"run.recorded", "run.revived", "run.cancel_told", "run.cancelled", "duty.begun", "promotion.begun"}
    | {"promotion.moved", "promotion.announced", "promotion.ended", "answer.posted", "answer.ended"}
)
_armed: "tuple[str, str, int, itertools.count[int]] | None" = None


class Reached(Exception):
    """A failpoint that was told to raise."""


def arm(environ: Mapping[str, str]) -> None:
    """Take up what the environment says; Refused with the list of points for what is none."""
    global _armed  # noqa: PLW0603  # one variable, so that a point that is off costs nothing
    if not (told := environ.get(VARIABLE)):
        _armed = None
        return
    found = re.fullmatch(r"([a-z_0-9.]+)=(kill|raise|sleep:[0-9.]+)(?:@([1-9][0-9]*))?", told)
    if found is None or found[1] not in POINTS:
        points = ", ".join(sorted(POINTS))
        raise Refused(f"{VARIABLE}={told}: say name=kill|raise|sleep:SECONDS, with @N for the N-th pass, of: {points}")
    _armed = (found[1], found[2], int(found[3] or 1), itertools.count(1))


def failpoint(name: str) -> None:
    """Nothing, unless this very point is armed and this is the pass that is meant."""
    if _armed is not None and _armed[0] == name and next(_armed[3]) == _armed[2]:
        _act(*_armed[:2])


def _act(name: str, action: str) -> None:
    if action == "kill":  # as by the kernel: nothing is closed, flushed or rolled back
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise Reached(name)
    else:
        time.sleep(float(action.removeprefix("sleep:")))
