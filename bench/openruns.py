"""What it costs to watch so many open runs, and how soon their ends and lost answers are noticed.

Called by `kubeflow`. A world is a stub server, a store that knows the server's open runs, and the service's process.
"""

import base64
import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfpserver import kfp_stub
from kfpworld import Place, decide, drop, made, runs
from sqlalchemy import Connection, Table, insert, select
from ulid import ULID

from service.flow.steps import step
from service.lifecycle import TERMINAL, State
from service.store import Store
from service.store.database import micros
from service.store.tables import decision, event, run, run_transition
from triggers.reason import Reason

DEFAULTS = {
    "timeout": 20.0,
    "rate": 5.0,
    "burst": 10,
    "polls": 60,
}  #: as in service.settings, where the tests are quick
ENDS, LOST = 10, 3
SETTLED = 10.0  #: seconds until a new process has imported what it imports
PATIENCE = 400.0
GOLDEN = 0.618034  #: its multiples fall into step with no rhythm

Row = dict[str, Any]
Happening = tuple[float, Callable[[int], None], int]


@dataclass
class World:
    """One server, one store, one process."""

    place: Place
    process: "subprocess.Popen[str]"
    store: Store
    ending: Sequence[str]  #: run keys of those that the server calls `ending 0`, `ending 1`, …
    ended: dict[str, float] = field(default_factory=dict)  #: by run key, when the server ended it
    lost: list[str] = field(default_factory=list)  #: events whose submissions were not answered

    def ask(self, **what: str) -> Any:
        """One line to the process and one back."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def calls(self) -> int:
        """GETs of runs, so far."""
        asked = self.place.stub.counts()["requests"]
        return sum(one["total"] for name, one in asked.items() if name.startswith("GET ") and "/runs" in name)

    def end(self, number: int) -> None:
        """One of them ends on the server: four of five well."""
        outcome = "succeed" if (number + 1) % 5 else "fail"
        self.ended[self.ending[number]] = time.time()
        self.place.stub.script(f"ending {number}", outcome=outcome, running=0, existing=True)

    def lose(self, number: int) -> None:
        """A new run is made, and the answer is lost."""
        self.place.stub.fault("drop_answer", method="POST", path="/runs$")
        self.lost.append(self.ask(key=f"lost-{number}.csv")["event"])

    def seen(self) -> list[float]:
        """Seconds from an end to its place in the store, of those that have arrived there."""
        moves = [(key, move) for key in self.ended for move in self.store.runs.transitions(key)]
        return [move.at.timestamp() - self.ended[key] for key, move in moves if move.after in TERMINAL]

    def adopted(self) -> list[float]:
        """Seconds from a submission to its adoption, of those that were adopted."""
        found = []
        for item in (item for event_id in self.lost for item in self.store.runs.of_event(event_id)):
            moves = self.store.runs.transitions(item.run_key)
            tried = [move.at for move in moves if move.after is State.SUBMITTING]
            found += [(move.at - tried[0]).total_seconds() for move in moves if move.reason is Reason.ADOPTED]
        return found

    def settled(self) -> bool:
        """Whether all that was begun was noticed."""
        return len(self.seen()) == len(self.ended) and len(self.adopted()) == len(self.lost)


@dataclass(frozen=True)
class Cost:
    """What one world came to."""

    open_runs: int
    calls: float  #: a minute
    cpu: float  #: seconds a minute
    rss: float  #: MiB
    seen: Sequence[float]  #: seconds each
    adopted: Sequence[float]


def measured(folder: Path, sizes: Sequence[int], seconds: float) -> list[Cost]:
    """These worlds side by side for so long: in each, ten runs end and three answers are lost; none where none is."""
    with ExitStack() as stack:
        worlds = [stack.enter_context(_world(folder / str(size), size)) for size in sizes]
        time.sleep(SETTLED)
        before = [(world.ask(), world.calls(), time.monotonic()) for world in worlds]
        _play([one for world in worlds if world.ending for one in _events(world, seconds)], seconds)
        after = [(world.ask(), world.calls(), time.monotonic()) for world in worlds]
        for world in worlds:
            if not world.ending:
                _lose_in_turn(world)
            _until(world.settled)
        per_minute = [60 / (end[2] - begin[2]) for begin, end in zip(before, after, strict=True)]
        return [
            Cost(
                open_runs=size,
                calls=(end[1] - begin[1]) * scale,
                cpu=(end[0]["cpu"] - begin[0]["cpu"]) * scale,
                rss=end[0]["rss"],
                seen=world.seen(),
                adopted=world.adopted(),
            )
            for size, world, begin, end, scale in zip(sizes, worlds, before, after, per_minute, strict=True)
        ]


def shown(seconds: Sequence[float]) -> tuple[str, str]:
    """The median and the worst."""
    return (f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}") if seconds else ("–", "–")


def _events(world: World, seconds: float) -> list[Happening]:
    """When what happens in it: ends all through, submissions early, for a long list takes long to read."""
    ends: list[Happening] = [(0.9 * seconds * (number * GOLDEN % 1), world.end, number) for number in range(ENDS)]
    return ends + [(0.4 * seconds * (number * GOLDEN % 1), world.lose, number) for number in range(LOST)]


def _play(events: Sequence[Happening], seconds: float) -> None:
    began = time.monotonic()
    for at, happens, number in sorted(events, key=lambda one: one[0]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        happens(number)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def _lose_in_turn(world: World) -> None:
    for number in range(LOST):
        world.lose(number)
        _until(world.settled)


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not noticed within {PATIENCE:.0f} s")
        time.sleep(0.5)


@contextmanager
def _world(folder: Path, size: int) -> Iterator[World]:
    folder.mkdir()
    with kfp_stub(folder) as stub:
        stub.script(outcome="run", pending=0)
        place = made(folder, stub, {}, **DEFAULTS)
        place.push()
        ending = _filled(place, size) if size else []
        argv = [sys.executable, str(Path(__file__).with_name("watcher.py")), str(place.home)]
        store = Store(place.settings.store)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            world = World(place, process, store, ending)
            try:
                if process.stdout is not None:
                    process.stdout.readline()
                _until(lambda: world.calls() > 0)
                yield world
            finally:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(timeout=30)
                store.close()


def _filled(place: Place, size: int) -> list[str]:
    """One run through the flow, and the others in its likeness; the keys of those that will end."""
    with place.opened() as app:
        decide(app, drop(app, "first.csv"))
        step(app, "runs.submit", runs(app)[0].run_key)
    stub = place.stub
    ids = stub.many_runs(ENDS, name="ending", outcome="run") + stub.many_runs(size - ENDS - 1, outcome="run")
    store = Store(place.settings.store)
    with store.database.write() as connection:
        likeness = [_only(connection, table) for table in (event, decision, run)]
        copies = [_copy(likeness, number, backend_id) for number, backend_id in enumerate(ids)]
        for at, table in enumerate((event, decision, run, run_transition)):
            connection.execute(insert(table), [copy[at] for copy in copies])
    store.close()
    return [copy[2]["run_key"] for copy in copies[:ENDS]]


def _only(connection: Connection, table: Table) -> Row:
    return dict(connection.execute(select(table)).one()._mapping)


def _copy(likeness: Sequence[Row], number: int, backend_id: str) -> list[Row]:
    """Rows of event, decision, run and its last move."""
    told, judged, ran = likeness
    key = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    event_id, decision_id, subject = str(ULID()), str(ULID()), f"s3://user-ids/{number}.csv"
    now = micros(datetime.now(UTC))
    told = told | {"id": event_id, "identity": f"{number:064}", "subject": subject, "stream": subject}
    judged = judged | {"id": decision_id, "event_id": event_id, "run_key": key}
    ran = ran | {"id": str(ULID()), "event_id": event_id, "decision_id": decision_id, "run_key": key}
    ran |= {"state": State.RUNNING, "backend_id": backend_id, "subject": subject, "started_at": now}
    move = {"run_key": key, "at": now, "before": State.SUBMITTED, "after": State.RUNNING}
    return [told, judged, ran, move | {"reason": Reason.OBSERVED_STATE, "detail": ""}]
