"""`make soak MINUTES=30`: traffic of all sources while processes are killed at random: nothing lost, nothing twice.

Real API, workers, Redis, MinIO, Alertmanager, and PostgreSQL with STORE=postgres; runs go to the stub KFP API server, a
process of its own, which counts executions by run key. Every few seconds one of the parts, sometimes all of them, is
ended by kill -9 and started again. A second API and a second worker are never killed: with the first API gone the
senders still reach one, as behind a balancer. Memory is measured of these two, for a process that starts anew every
minute would hide what it loses: their resident size each ten seconds, all that they run included, and after the
warm-up of five minutes the median of the first quarter against that of the last. Exit status 1, with the names, when a
promise was broken, something grew, or there was too little of either events or kills to mean anything.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import account
import postgres
import scene
from kfpserver import Stub, kfp_stub
from kinds import KINDS, rules_file, sources_file
from senders import Senders

from service import embedded
from service.embedded import Grouping
from service.settings import load
from service.supervise import Supervisor
from service.up import Stack, Wanted, bring_up
from service.wiring import opened
from triggers.sources import SOURCES

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-some-length"
VICTIMS = ("api", "worker", "redis", "minio", "alertmanager")
STEADY = ("steady-api", "steady-worker")
EVERY = 7.5  #: seconds between two kills, on average
ALL = 0.05  #: of the kills end every victim at once
RATE = 10.5  #: things a second
WARM = 300.0  #: seconds until memory counts: what has grown by then are caches and the allocator's arenas, one a thread
LOOK = 10.0  #: seconds between two looks at it
PACE = {"LEASE": "8", "SWEEP": "1", "TAKEOVER": "3", "SETTLE": "20", "WATCH": "1", "NOTICE": "3"}


@dataclass(frozen=True)
class Stage:
    """Everything up on one home."""

    stack: Stack
    supervisor: Supervisor
    stub: Stub
    apis: list[str]  #: their addresses
    database: postgres.Server | None

    def victims(self) -> dict[str, Callable[[], bool]]:
        """How each part is ended without a word; False when it is down. Who ends PostgreSQL starts it again."""
        kills: dict[str, Callable[[], bool]] = {name: partial(self._killed, name) for name in VICTIMS}
        return kills | ({"postgres": self._crashed} if self.database else {})

    def _killed(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            alive = Path(f"/proc/{self.supervisor.pid(name)}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            self.supervisor.kill(name)
            return alive
        return False

    def _crashed(self) -> bool:
        assert self.database is not None
        sessions = Path(f"/proc/{self.database.pid}/task/{self.database.pid}/children").read_text().split()
        self.database.stop(signal.SIGKILL)
        for pid in sessions:  # a new server does not start beside what is left of the old one
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.5)
        self.database.start()
        return True


@contextmanager
def staged(folder: Path, store: str) -> Iterator[Stage]:
    """The parts, started in order, with the store on SQLite or on a PostgreSQL of its own."""
    home = folder / "home"
    (home / "rules").mkdir(parents=True)
    (home / "packages").mkdir()
    for name, text in (("secret", SECRET), ("sources.yaml", sources_file()), ("rules/soak.yaml", rules_file())):
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
        env = {f"KFP_TRIGGERS_PACE__{name}": value for name, value in PACE.items()}
        env["KFP_TRIGGERS_LOG__FORMAT"] = "json"
        wanted = Wanted(minio=True, alertmanager=Grouping("1s", "5s", "4h"), port=0, env=env)
        stack = bring_up(supervisor, wanted)
        port = embedded.ports(supervisor.home, ("steady",))["steady"]
        argv, more = [sys.executable, "-m", "service.cli"], {**stack.env, "KFP_TRIGGERS_API__PORT": str(port)}
        supervisor.start(replace(embedded.api(home, [*argv, "api"], port, more), name=STEADY[0]))
        supervisor.start(embedded.worker(home, [*argv, "worker"], STEADY[1], stack.env))
        yield Stage(stack, supervisor, stub, [stack.api, f"http://{embedded.HOST}:{port}"], database)


class Killer(threading.Thread):
    """Ends parts at random moments; every kill of something that lived is noted with its time."""

    def __init__(self, victims: Mapping[str, Callable[[], bool]], seed: int) -> None:
        super().__init__(daemon=True)
        self.kills: list[tuple[float, str]] = []
        self.over = threading.Event()
        self._victims, self._dice = victims, random.Random(seed)

    def run(self) -> None:
        while not self.over.wait(self._dice.expovariate(1 / EVERY)):
            for name in self._victims if self._dice.random() < ALL else [self._dice.choice(list(self._victims))]:
                at = time.time()
                if self._victims[name]():
                    self.kills.append((at, name))

    def stop(self) -> None:
        """What was ended is being started again when this returns."""
        self.over.set()
        self.join()


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
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watched(stage: Stage, senders: Senders, killer: Killer, seconds: float) -> dict[str, list[float]]:
    """Until the time is over: memory by name, in MiB, from the warm-up on; a line of progress each minute."""
    memory: dict[str, list[float]] = {name: [] for name in STEADY}
    began, next_word = time.monotonic(), 60.0
    while (past := time.monotonic() - began) < seconds:
        time.sleep(min(LOOK, seconds - past))
        now = {name: resident(stage.supervisor.pid(name)) for name in STEADY}
        if past > WARM:
            for name, size in now.items():
                memory[name].append(size)
        if past > next_word - LOOK:
            sizes = ", ".join(f"{name} {size:.0f} MiB" for name, size in now.items())
            print(
                f"{next_word / 60:4.0f} min  {len(senders.promised)} told, {len(killer.kills)} kills, {sizes}",
                flush=True,
            )
            next_word += 60
    return memory


def played(stage: Stage, seconds: float, seed: int) -> account.Found:
    """The play, the drain, and the account."""
    stack = stage.stack
    assert stack.s3 is not None
    folder = stack.home.parent
    senders = Senders(stage.apis, stack.s3, stack.alertmanager, folder, SECRET.encode(), RATE, seed)
    killer = Killer(stage.victims(), seed)
    senders.start()
    killer.start()
    memory = watched(stage, senders, killer, seconds)
    killer.stop()
    senders.stop()
    with opened(load(stack.home), rings=False) as app:
        account.drained(app, senders.promised)
        verify = [sys.executable, "-m", "service.cli", "--home", str(stack.home), "verify", "--json"]
        verified = subprocess.run(verify, capture_output=True, text=True, check=False).stdout
        return account.found(app, stage.stub, senders, killer.kills, json.loads(verified), memory)


def main() -> int:
    """Plays it, and prints the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--json", type=Path, help="also write the account to this file")
    chosen = parser.parse_args()
    if missing := SOURCES.keys() ^ KINDS.keys():
        parser.error(f"no sender, or no source type: {', '.join(sorted(missing))}; mend tests/soak/kinds.py")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with staged(folder, chosen.store) as stage:
        found = played(stage, chosen.minutes * 60, chosen.seed)
    broken = found.broken(chosen.minutes)
    print(account.table(found), flush=True)
    if broken:
        print(f"broken: {', '.join(broken)}; logs and store are in {folder}", flush=True)
    else:
        print("nothing lost, nothing twice, memory flat", flush=True)
        shutil.rmtree(folder)
    if chosen.json:
        chosen.json.write_text(account.as_json(found, store=chosen.store, minutes=chosen.minutes, seed=chosen.seed))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
