"""What happens by the clock: sweep, watch, answers, the scan for what nobody told of. Each is under a lease in the
store, so that any number of processes may try.

A thread of the API and of each worker. No beat process, nothing that must be single.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from service.errors import ServiceError
from service.failpoints import failpoint
from service.flow.answer import answer_due
from service.flow.reconcile import RECONCILE, reconcile
from service.flow.sweep import PACED, ring_paced, sweep
from service.flow.watch import watch
from service.ledger import Claim
from service.log import logger
from service.ports import App
from service.settings import PaceSettings


@dataclass(frozen=True)
class Duty:
    """One thing to do every so many seconds."""

    name: str
    every: float
    do: Callable[[App], None]
    alone: bool = True  #: in one process at a time, under a lease


class Duties:
    """A thread for each duty: a slow one holds up no other."""

    def __init__(self, app: App, pace: PaceSettings) -> None:
        self._app = app
        self._lease = timedelta(seconds=pace.lease)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(duty,), name=duty.name, daemon=True)
            for duty in (
                Duty("sweep", pace.sweep, sweep),
                Duty("watch", pace.watch, watch),
                Duty("paced", PACED, ring_paced, alone=False),
                Duty("answer", pace.sweep, answer_due),
                Duty("clock", pace.sweep, lambda app: app.clock.look(), alone=False),
                Duty(RECONCILE, pace.sweep, reconcile),
            )
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish what is under way and give the leases back."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self, duty: Duty) -> None:
        while not self._stop.wait(duty.every):
            self._once(duty)
        if not duty.alone:
            return
        try:
            self._app.ledger.leases.give_back(duty.name, self._app.holder)
        except ServiceError as error:
            logger.warning("lease_kept", duty=duty.name, detail=error.detail)

    def _once(self, duty: Duty) -> None:
        now = self._app.clock.now()
        taken = Claim(holder=self._app.holder, now=now, until=now + max(self._lease, timedelta(seconds=2 * duty.every)))
        try:
            if not duty.alone or self._app.ledger.leases.take(duty.name, taken):
                failpoint("duty.begun")
                duty.do(self._app)
        except ServiceError as error:
            logger.warning("duty_postponed", duty=duty.name, detail=error.detail)
        except Exception:
            logger.exception("duty_failed", duty=duty.name)
