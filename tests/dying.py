"""Processes that submit one run and are killed at a named point by the kernel: `python dying.py HOME`, orders on stdin.

Imports everything once and forks for each order `{"point": …, "seed": …, "run_key": …}`, side by side, so that a
hundred deaths cost seconds, and are fresh when somebody else takes over. Prints how each ended. The points are outside
the service's code: around the calls that it makes through its ports, on the wire, and at the database's commit.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import kfp  # noqa: F401 - so that no child has to
from sqlalchemy import event

import service.wiring
from service.flow.submit import submit
from service.settings import Settings, load

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
    """A backend that dies when its POST of the run is on the wire and the answer is waited for."""

    def __init__(self, real: Any, seed: int) -> None:
        self._real, self._seed = real, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create(self, job: Any) -> str:
        putrequest, getresponse = HTTPConnection.putrequest, HTTPConnection.getresponse

        def noted(connection: Any, method: str, url: str, *args: Any, **more: Any) -> None:
            connection.wanted = (method, url)
            putrequest(connection, method, url, *args, **more)

        def waited_for(connection: Any, *args: Any, **more: Any) -> Any:
            if connection.wanted[0] == "POST" and connection.wanted[1].endswith("/runs"):
                time.sleep(random.Random(self._seed).uniform(0, 0.1))
                die()
            return getresponse(connection, *args, **more)

        HTTPConnection.putrequest = noted  # type: ignore[method-assign]
        HTTPConnection.getresponse = waited_for  # type: ignore[method-assign]
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
    children = []
    for line in sys.stdin:
        children.append(_child(settings, json.loads(line)))
        time.sleep(0.1)  # two cores answer twenty at once too late for a quick time-out
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


def _child(settings: Settings, order: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        with service.wiring.opened(settings, rings=False) as app:
            submit(arranged(app, order["point"], order["seed"]), order["run_key"])
        os._exit(0)
    return child


if __name__ == "__main__":
    main()
