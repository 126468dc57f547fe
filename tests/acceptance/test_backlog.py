"""10,000 events wait, every process is dead, all is started again: the first run comes as soon as with one event."""

import shutil
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kfpserver import kfp_stub
from kfpworld import drop, made

from service import embedded
from service.ledger import Arrival
from service.records import Accepted
from service.store.events import accept
from service.supervise import Supervisor

MANY, ROUNDS = 10_000, 3
STORE = Path("data", "kfp-triggers.db")  #: below a home
PACE = {"lease": 30.0, "sweep": 5.0, "takeover": 10.0, "settle": 180.0}  # the defaults: what a user has


def waiting(folder: Path, count: int) -> Path:
    """A store as an API that was killed leaves it: events accepted, nobody told."""
    folder.mkdir()
    arrivals: list[Arrival] = []

    def later(arrival: Arrival) -> Accepted:
        arrivals.append(arrival)
        return Accepted(delivery_id="", event_ids=[""], new_event_ids=())

    with kfp_stub(folder) as stub:
        place = made(folder, stub)
        place.push()
        with place.opened() as app:
            for number in range(count):
                drop(replace(app, accept=later), f"{number}.csv", sequencer=f"187A5B1C{number:08X}")
            with app.ledger.database.write() as connection:  # type: ignore[attr-defined]  # one commit, not 10,000
                for arrival in arrivals:
                    accept(connection, arrival)
    return place.home / STORE


def first_run_after(folder: Path, store: Path) -> float:
    """Seconds from the start of the processes to the first run that the server makes."""
    folder.mkdir()
    with kfp_stub(folder) as stub, Supervisor(folder / "up", print) as supervisor:
        place = made(folder, stub, pace=PACE, timeout=20.0, polls=60)
        place.push()
        shutil.copy(store, place.home / STORE)
        ports = embedded.ports(supervisor.home, ("redis", "api"))
        supervisor.start(embedded.redis(supervisor.home, ports["redis"]))
        env = {
            "KFP_TRIGGERS_HOME": str(place.home),
            "KFP_TRIGGERS_API__PORT": str(ports["api"]),
            "KFP_TRIGGERS_BROKER__URL": embedded.redis_url(supervisor.home, ports["redis"]),
        }
        argv = [sys.executable, "-m", "service.cli"]
        began = time.monotonic()
        supervisor.start(embedded.worker(place.home, [*argv, "worker"], "worker", env))
        supervisor.start(embedded.api(place.home, [*argv, "api"], ports["api"], env))
        while not stub.counts()["executed"]:
            assert time.monotonic() - began < 120
            time.sleep(0.02)
        return time.monotonic() - began


@pytest.mark.alone
def test_a_backlog_does_not_delay_the_first_run(tmp_path: Path) -> None:
    one, many = waiting(tmp_path / "one", 1), waiting(tmp_path / "many", MANY)
    cold, loaded = [], []
    for turn in range(ROUNDS):  # in turns: the machine is shared
        cold.append(first_run_after(tmp_path / f"one-{turn}", one))
        loaded.append(first_run_after(tmp_path / f"many-{turn}", many))
    ratios = [found / least for least, found in zip(cold, loaded, strict=True)]
    print(
        f"first run after {statistics.median(cold):.1f} s with one event, {statistics.median(loaded):.1f} s with {MANY}"
    )
    assert statistics.median(ratios) <= 1.2, (cold, loaded)
