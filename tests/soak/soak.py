"""`make soak MINUTES=30`: traffic of all sources while processes are killed at random: nothing lost, nothing twice.

Real API, workers, Redis, MinIO, PostgreSQL with STORE=postgres; runs go to the stub KFP API server, a process of its
own, which counts executions by run key. Every few seconds one of the parts, sometimes all of them, is ended by kill -9
and started again. A second API and a second worker are never killed: of them the memory is watched, and with the first
API gone the senders still reach one, as behind a balancer. Exit status 1 when a promise was broken.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import postgres
import scene
from kfpserver import Stub, kfp_stub
from senders import BUCKET, REPOSITORY, Senders
from sqlalchemy import select

from service import embedded
from service.ports import App
from service.settings import load
from service.store.tables import event, run
from service.supervise import Supervisor
from service.up import Stack, Wanted, bring_up
from service.wiring import opened

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-some-length"
VICTIMS = ("api", "worker", "redis", "minio")
EVERY = 7.5  #: seconds between two kills, on average
ALL = 0.05  #: of the kills end every victim at once
RATE = 13.0  #: things a second
WARM = 0.15  #: of the time, until memory counts
FLAT = 20.0  #: MiB that it may grow by afterwards
DRAIN = 300.0  #: seconds in which everything must have come to its end
PACE = {"LEASE": "8", "SWEEP": "1", "TAKEOVER": "3", "SETTLE": "20", "WATCH": "1"}
SOURCES = f"""\
apiVersion: kfp-triggers/v1
sources:
  uploads: {{type: minio, token: {{file: secret}}, buckets: [{BUCKET}]}}
  model-repo: {{type: github, secrets: [{{file: secret}}], repositories: {{{REPOSITORY}: {{url: "https://git.example/m"}}}}}}
  drift: {{type: alertmanager, token: {{file: secret}}}}
"""
RULE = """\
  {source}:
    trigger: {{source: {source}, event: {event}}}
    run: {{pipeline: echo@v1, params: {{uri: "${{event.subject}}", size: 1}}}}
"""
RULES = "apiVersion: kfp-triggers/v1\nrules:\n" + "".join(
    RULE.format(source=source, event=event)
    for source, event in (("uploads", "object.created"), ("model-repo", "git.push"), ("drift", "alert.firing"))
)


@dataclass(frozen=True)
class Stage:
    """Everything up on one home."""

    stack: Stack
    supervisor: Supervisor
    stub: Stub
    apis: list[str]  #: their addresses
    database: postgres.Server | None

    def victims(self) -> dict[str, Callable[[], None]]:
        """How each part is ended without a word. Who ends PostgreSQL starts it again: it is not the supervisor's."""
        kills: dict[str, Callable[[], None]] = {name: partial(self.supervisor.kill, name) for name in VICTIMS}
        return kills | ({"postgres": self._crash} if self.database else {})

    def _crash(self) -> None:
        assert self.database is not None
        sessions = Path(f"/proc/{self.database.pid}/task/{self.database.pid}/children").read_text().split()
        self.database.stop(signal.SIGKILL)
        for pid in sessions:  # a new server does not start beside what is left of the old one
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.5)
        self.database.start()


@contextmanager
def staged(folder: Path, store: str) -> Iterator[Stage]:
    """The parts, started in order, with the store on SQLite or on a PostgreSQL of its own."""
    home = folder / "home"
    (home / "rules").mkdir(parents=True)
    (home / "packages").mkdir()
    for name, text in (("secret", SECRET), ("sources.yaml", SOURCES), ("rules/soak.yaml", RULES)):
        (home / name).write_text(text)
    with ExitStack() as parts:
        stub = parts.enter_context(kfp_stub(folder, "--pending", "0.2", "--running", "1"))
        database = parts.enter_context(postgres.server()) if store == "postgres" else None
        settings = f'[backends.default]\nendpoint = "{stub.url}"\ntimeout = 3.0\nrate = 0\n'
        if database is not None:
            settings += f'[store]\nurl = "{database.url("postgres")}"\n'
        (home / "settings.toml").write_text(settings)
        package = folder / "echo.yaml"
        scene.run(sys.executable, str(ROOT / "tests" / "acceptance" / "echo.py"), str(package))
        push = ("pipelines", "push", "--wait", "--version", "v1", str(package))
        scene.run(sys.executable, "-m", "service.cli", "--home", str(home), "migrate")
        scene.run(sys.executable, "-m", "service.cli", "--home", str(home), *push)
        supervisor = parts.enter_context(Supervisor(home / "data", lambda _: None))
        env = {f"KFP_TRIGGERS_PACE__{name}": value for name, value in PACE.items()} | {
            "KFP_TRIGGERS_LOG__FORMAT": "json"
        }
        stack = bring_up(supervisor, Wanted(minio=True, port=0, env=env))
        port = embedded.ports(supervisor.home, ("steady",))["steady"]
        argv, more = [sys.executable, "-m", "service.cli"], {**stack.env, "KFP_TRIGGERS_API__PORT": str(port)}
        supervisor.start(replace(embedded.api(home, [*argv, "api"], port, more), name="steady-api"))
        supervisor.start(embedded.worker(home, [*argv, "worker"], "steady-worker", stack.env))
        yield Stage(stack, supervisor, stub, [stack.api, f"http://{embedded.HOST}:{port}"], database)


class Killer(threading.Thread):
    """Ends parts at random moments; every kill is counted."""

    def __init__(self, victims: Mapping[str, Callable[[], None]], seed: int) -> None:
        super().__init__(daemon=True)
        self.kills: Counter[str] = Counter()
        self.over = threading.Event()
        self._victims, self._dice = victims, random.Random(seed)

    def run(self) -> None:
        while not self.over.wait(self._dice.expovariate(1 / EVERY)):
            for name in self._victims if self._dice.random() < ALL else [self._dice.choice(list(self._victims))]:
                self._victims[name]()
                self.kills[name] += 1


def resident(group: int) -> float:
    """MiB of a process group, which a supervised process and its children are."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[2]) == group:
                pages += int((stat.parent / "statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return pages * 4096 / 2**20


@dataclass(frozen=True)
class Found:
    """What came of it."""

    events: int
    runs: int
    lost: list[str]  #: subjects that were promised and have not exactly one run, and what `verify` calls lost or stuck
    twice: list[str]  #: run keys that the server executed more than once, and what `verify` calls twice
    slowest: float  #: seconds from an event's acceptance to its run's submission


def drained(app: App, promised: set[str]) -> None:
    """Wait until each thing has a run that ended, or until the time is up."""
    deadline = time.monotonic() + DRAIN
    while time.monotonic() < deadline:
        states = app.ledger.account.gauges()
        ended = states["run"].get("succeeded", 0)
        if ended >= len(promised) and sum(states["run"].values()) == ended and not states["event"].get("accepted"):
            return
        time.sleep(1)


def found(app: App, stub: Stub, promised: set[str], verified: dict[str, Any]) -> Found:
    """The account by the service, by the server, and by who was promised something."""
    looked = select(run.c.subject, (run.c.submitted_at - event.c.received_at) / 1e6).join(
        event, event.c.id == run.c.event_id
    )
    with app.ledger.database.read() as connection:  # type: ignore[attr-defined]  # by SQL, past the service's own words
        rows = connection.execute(looked).all()
    by_subject = Counter(subject for subject, _ in rows)
    executed = stub.counts()["executed_keys"]
    lost = sorted(one for one in promised if by_subject[one] < 1) + verified["lost"] + verified["stuck"]
    twice = sorted(key for key, count in executed.items() if count > 1) + verified["twice"]
    twice += sorted(one for one, count in by_subject.items() if count > 1)
    events = sum(app.ledger.account.gauges()["event"].values())
    return Found(events, len(rows), lost, twice, max((float(seconds or 0) for _, seconds in rows), default=0.0))


def main() -> int:
    """Plays it, and prints the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, staged(Path(folder), chosen.store) as stage:
        stack = stage.stack
        assert stack.s3 is not None
        dice = random.Random(chosen.seed)
        senders = Senders(
            lambda source: f"{dice.choice(stage.apis)}/hooks/{source}", stack.s3, SECRET.encode(), RATE, chosen.seed
        )
        killer, memory = Killer(stage.victims(), chosen.seed), dict[str, list[float]]()
        senders.start()
        killer.start()
        _watch(stage.supervisor, senders, killer, memory, chosen.minutes * 60)
        killer.over.set()
        killer.join()
        senders.stop()
        with opened(load(stack.home), rings=False) as app:
            drained(app, senders.promised)
            verify = [sys.executable, "-m", "service.cli", "--home", str(stack.home), "verify", "--json"]
            verified = subprocess.run(verify, capture_output=True, text=True, check=False).stdout
            account = found(app, stage.stub, senders.promised, json.loads(verified))
    return told(account, senders, killer, memory)


def _watch(
    supervisor: Supervisor, senders: Senders, killer: Killer, memory: dict[str, list[float]], seconds: float
) -> None:
    """Until the time is over: look at memory each five seconds, and say how far it is each minute."""
    began, next_word = time.monotonic(), 60.0
    while (past := time.monotonic() - began) < seconds:
        time.sleep(min(5.0, seconds - past))
        if past > WARM * seconds:
            for name in ("steady-api", "steady-worker"):
                memory.setdefault(name, []).append(resident(supervisor.pid(name)))
        if past > next_word:
            print(f"{past / 60:4.0f} min  {len(senders.promised)} told  {killer.kills.total()} kills", flush=True)
            next_word += 60


def told(account: Found, senders: Senders, killer: Killer, memory: dict[str, list[float]]) -> int:
    """The table; 1 when something was lost, done twice, or grew."""
    grown = {
        name: sorted(sizes[-6:])[len(sizes[-6:]) // 2] - sorted(sizes[:6])[len(sizes[:6]) // 2]
        for name, sizes in memory.items()
    }
    rows = {
        "events": account.events,
        "told by senders": len(senders.promised),
        "tries in vain": senders.tries,
        "runs": account.runs,
        "kills": f"{killer.kills.total()}: {dict(sorted(killer.kills.items()))}",
        "lost": f"{len(account.lost)} {' '.join(account.lost[:10])}".strip(),
        "twice": f"{len(account.twice)} {' '.join(account.twice[:10])}".strip(),
        "slowest submission": f"{account.slowest:.1f} s",
        **{f"memory of {name}": f"{sizes[0]:.0f} → {sizes[-1]:.0f} MiB" for name, sizes in memory.items()},
    }
    print("\n".join(f"{name:24} {value}" for name, value in rows.items()), flush=True)
    return int(bool(account.lost or account.twice or any(growth > FLAT for growth in grown.values())))


if __name__ == "__main__":
    sys.exit(main())
