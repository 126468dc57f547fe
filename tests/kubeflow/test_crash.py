"""kill -9 at each point of a submission, with 20 seeds: the KFP API server counts exactly one creation per run key."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dying import POINTS
from kfpserver import Stub
from kfpworld import Place, account, decide, drop, made, runs, submitted, work

from service.lifecycle import State
from service.ports import App

ROOT = Path(__file__).parents[2]
SEEDS = 20


def die_at(place: Place, points: Sequence[str], seeds: int) -> None:
    """A run for each point and seed, each submitted by a process that is killed there."""
    orders = []
    with place.opened() as app:
        for point in points:
            for seed in range(seeds):
                decide(app, drop(app, f"{point}/{seed}.csv", sequencer=f"187A5B1C{len(orders):08X}"))
                orders.append({"point": point, "seed": seed, "run_key": runs(app)[-1].run_key})
    for order in orders:
        if order["point"] == "post sent":
            # The server makes the run at once, or only when the client's lease is long over.
            hang, key = "hang_after" if order["seed"] % 2 else "hang_before", order["run_key"]
            place.stub.fault(hang, method="POST", path="/runs", body=key, seconds=place.settings.pace.lease + 0.3)
    argv = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "dying.py"), str(place.home)]
    told = "".join(json.dumps(order) + "\n" for order in orders)
    done = subprocess.run(argv, cwd=ROOT, input=told, capture_output=True, text=True, check=True, timeout=120)
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert set(statuses) <= {-9, 0}, statuses
    assert statuses.count(-9) > len(orders) / 2  # on a machine that is behind, a call may time out before the point


def check_one_each(place: Place, app: App, within: float) -> float:
    seconds = work(app, lambda: submitted(app), within)
    assert place.stub.counts()["executed_keys"] == {run.run_key: 1 for run in runs(app)}
    assert {run.state for run in runs(app)} <= {State.SUBMITTED, State.RUNNING, State.SUCCEEDED}
    work(app, lambda: all(run.recorded_at for run in runs(app)), within)
    assert account(app) == {}
    return seconds


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point_there_is_one_creation_per_key(place: Place, point: str) -> None:
    place.stub.script(running=0.2, pending=0.1)
    die_at(place, [point], SEEDS)
    with place.opened() as app:
        seconds = check_one_each(place, app, 60)
    print(f"killed {SEEDS} times at {point}: all submitted {seconds:.1f} s after the last death")


@dataclass
class Later:
    """A clock ahead of the machine's."""

    seconds: float

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


def test_at_the_default_pace_too(tmp_path: Path, stub: Stub) -> None:
    """The lease is waited for. The one that was never sent settles for three minutes: those pass on our clock alone."""
    place = made(tmp_path, stub, pace={"takeover": 0}, timeout=20.0, polls=60)
    place.push()
    place.stub.script(running=1, pending=1)
    pace = place.settings.pace
    assert (pace.lease, pace.sweep, pace.settle) == (30, 5, 180)
    die_at(place, POINTS, 1)
    with place.opened() as app:
        seconds = work(app, lambda: len([run for run in runs(app) if run.backend_id]) == len(POINTS) - 1, 60)
        print(f"at the default pace: all that were sent are known {seconds:.1f} s after the last death")
        (absent,) = [run for run in runs(app) if not run.backend_id]
        assert absent.submitted_at
        assert absent.due_at
        assert 179 < (absent.due_at - absent.submitted_at).total_seconds() < 182
        check_one_each(place, replace(app, clock=Later(pace.settle)), 60)
