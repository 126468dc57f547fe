"""F25: a machine's clock is set, or two machines' clocks differ. Real processes whose wall clock libfaketime sets.

What counts from the boot goes on as it does where a clock is set. A run's lease, its settle time and everything that
is due are told by one process and read by another.
"""

import base64
import hashlib
import hmac
import importlib.util
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from faults.redisserver import Redis
from faults.report import Account
from faults.stage import PACE, SOURCES, Mother, Stage, bound, until
from faults.test_broker import redis  # noqa: F401 - a fixture
from world import TOKEN

from service.lifecycle import State

pytestmark = pytest.mark.faults
LATE = 2.5  #: seconds after which a run is made whose POST was given up: more than a time-out, less than settle
REGISTRY = "  registry: {type: mlflow, secrets: [{file: uploads.token}], models: [income]}\n"


class Clock:
    """A file that says by how much a process's wall clock is off."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.env = {"FAKETIME_TIMESTAMP_FILE": str(file)}
        self.set("+0")

    def set(self, shift: str) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(shift)
        part.rename(self.file)


@pytest.fixture(scope="module")
def mother(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mother]:
    """Of processes with a clock of their own."""
    package = importlib.util.find_spec("libfaketime")
    if package is None or package.origin is None:
        pytest.skip("libfaketime has a library for Linux on x86-64 only")
    library = Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    right = Clock(tmp_path_factory.mktemp("clock") / "right")
    how = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    one = Mother(LD_PRELOAD=str(library), **how, **right.env)
    yield one
    one.close()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.mark.parametrize(
    "jumps",
    [pytest.param(["+2d"], marks=pytest.mark.quick), ["-1h"], ["-1s"], ["+2d", "-1h", "+0"]],
    ids=["two_days_on", "an_hour_back", "a_leap_second", "to_and_fro"],
)
def test_F25_the_clock_is_set_while_runs_are_under_way(  # noqa: N802
    stage: Stage, account: Account, clock: Clock, jumps: Sequence[str]
) -> None:
    """While their POST is unanswered: what looks two days old was sent a moment ago, and is there a moment later."""
    stage.stub.fault("hang_before", method="POST", path="/runs$", seconds=LATE, times=-1)
    stage.api(**clock.env)
    for turn, jump in enumerate(jumps, 1):
        for _ in range(3):
            stage.deliver()
        until(lambda: any(run.state is State.SUBMITTING for run in stage.runs()), what="one is being sent")
        clock.set(jump)
        account.recovered(stage.settled(3 * turn))
        assert account.seconds[-1] <= bound(PACE["settle"])


@pytest.mark.parametrize("jump", ["-1h", "+2d"])
def test_F25_what_a_dead_process_held_is_taken_up_though_the_clock_was_set(  # noqa: N802
    stage: Stage, account: Account, clock: Clock, jump: str
) -> None:
    dying = stage.api("run.intent_written=kill", **clock.env)
    body = stage.body()
    stage.post(body)
    assert dying.ended() is not None
    clock.set(jump)
    stage.api(**clock.env)
    stage.deliver(body)
    account.recovered(stage.settled(1))
    assert account.seconds[-1] <= bound(PACE["settle"])


def test_F25_processes_whose_clocks_are_an_hour_apart(  # noqa: N802
    stage: Stage,
    redis: Redis,  # noqa: F811 - the fixture
    account: Account,
    tmp_path: Path,
) -> None:
    redis.start()
    clocks = [Clock(tmp_path / name) for name in ("ahead", "behind")]
    for clock, shift in zip(clocks, ("+1h", "-1h"), strict=True):
        clock.set(shift)
    broker = {"KFP_TRIGGERS_BROKER__URL": redis.url}
    stage.stub.fault("hang_before", method="POST", path="/runs$", seconds=LATE, times=-1)
    stage.api(**broker)
    ahead, _ = (stage.start("worker", **broker, **clock.env) for clock in clocks)
    for _ in range(3):
        stage.deliver()
    account.recovered(stage.settled(3))
    for _ in range(3):
        stage.deliver()
    until(lambda: any(run.state is State.SUBMITTING for run in stage.runs()), what="one is being sent")
    ahead.kill()
    account.recovered(stage.settled(6))
    assert account.seconds[-1] <= bound(PACE["settle"])


@pytest.mark.parametrize("change", ["2027-03-28T01:00:00+00:00", "2026-10-25T01:00:00+00:00"], ids=["spring", "autumn"])
def test_F25_summer_time_begins_and_ends(stage: Stage, account: Account, clock: Clock, change: str) -> None:  # noqa: N802
    off = datetime.fromisoformat(change).timestamp() - time.time()
    clock.set(f"{off - 4:+.3f}")
    far = {"KFP_TRIGGERS_BACKENDS__DEFAULT__TIME_LIMIT": "1000000000"}  # the API server lives in another month
    stage.api(TZ="Europe/Berlin", **far, **clock.env)
    for number in range(1, 9):
        stage.deliver()
        account.recovered(stage.settled(number))
        assert account.seconds[-1] <= bound()


@pytest.mark.quick
def test_F25_the_window_of_a_signature_goes_by_the_machines_clock(stage: Stage, clock: Clock) -> None:  # noqa: N802
    stage.write("sources.yaml", SOURCES + REGISTRY)
    stage.api(**clock.env)
    for shift, seconds in (("+0", 0), ("+2d", 172_800), ("-1h", -3600)):
        clock.set(shift)
        assert signed(stage, f"{shift} now", time.time() + seconds) == 202
        assert signed(stage, f"{shift} old", time.time() + seconds - 600) == 401
        assert signed(stage, f"{shift} new", time.time() + seconds + 600) == 401


def signed(stage: Stage, delivery: str, at: float) -> int:
    """The answer to a word of MLflow's, signed at this time."""
    data = {"name": "income", "alias": delivery, "version": "1"}
    told = {"entity": "model_version_alias", "action": "created", "data": data}
    body = json.dumps(told | {"timestamp": datetime.fromtimestamp(at, UTC).isoformat()}).encode()
    words = f"{delivery}.{int(at)}.".encode() + body
    mac = base64.b64encode(hmac.new(TOKEN.encode(), words, hashlib.sha256).digest()).decode()
    names = {"delivery-id": delivery, "timestamp": str(int(at)), "signature": f"v1,{mac}"}
    headers = {f"x-mlflow-{name}": value for name, value in names.items()}
    return stage.post(body, "registry", {"content-type": "application/json"} | headers)
