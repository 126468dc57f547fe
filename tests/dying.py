"""Processes that submit one run and are killed at a named point by the kernel: `python dying.py HOME`, orders on stdin.

Imports everything once and forks for each order `{"point": …, "seed": …, "run_key": …}`, so that a hundred deaths cost
seconds. The points are outside the service's code: around the calls that it makes through its ports, and at the
database's commit.
"""

import json
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import kfp  # noqa: F401 - so that no child has to
from sqlalchemy import event

import service.wiring
from service.flow.submit import submit
from service.settings import load

POINTS = ("before intent", "after intent", "post sent", "answer received", "before commit")


def die() -> None:
    """As kill -9 does: nothing is closed, flushed or rolled back."""
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A port whose one method dies before or after the real one; everything else is the real one's."""

    def __init__(self, real: Any, method: str, *, after: bool) -> None:
        self._real, self._method, self._after = real, method, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        return self._call if name == self._method else found

    def _call(self, *args: Any, **more: Any) -> Any:
        if not self._after:
            die()
        answer = getattr(self._real, self._method)(*args, **more)
        die()
        return answer


class Ledger:
    """The store with one of its ledgers changed."""

    def __init__(self, real: Any, **changed: Any) -> None:
        self._real, self._changed = real, changed

    def __getattr__(self, name: str) -> Any:
        return self._changed.get(name) or getattr(self._real, name)


class Sending:
    """A backend that dies a moment after its POST went out; the stub holds the answer back."""

    def __init__(self, real: Any, seed: int) -> None:
        self._real, self._seed = real, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create(self, job: Any) -> str:
        threading.Timer(random.Random(self._seed).uniform(0.05, 0.25), die).start()
        return str(self._real.create(job))


class Committing:
    """A backend after whose answer the next commit is the end."""

    def __init__(self, real: Any, engine: Any) -> None:
        self._real, self._engine = real, engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create(self, job: Any) -> str:
        made = str(self._real.create(job))
        event.listen(self._engine, "commit", lambda _connection: die())
        return made


def arranged(app: Any, point: str, seed: int) -> Any:
    """The App that dies at this point."""
    backend = app.backends["default"]
    if point == "before intent":
        return replace(app, ledger=Ledger(app.ledger, queue=Dying(app.ledger.queue, "begin", after=False)))
    if point == "after intent":
        return replace(app, ledger=Ledger(app.ledger, queue=Dying(app.ledger.queue, "begin", after=True)))
    if point == "post sent":
        return replace(app, backends={"default": Sending(backend, seed)})
    if point == "answer received":
        return replace(app, backends={"default": Dying(backend, "create", after=True)})
    return replace(app, backends={"default": Committing(backend, app.ledger.database.engine)})


def main() -> None:
    settings = load(Path(sys.argv[1]))
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            with service.wiring.opened(settings, rings=False) as app:
                submit(arranged(app, order["point"], order["seed"]), order["run_key"])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    main()
