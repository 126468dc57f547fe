"""F9 to F16: the doorbell is away, dies, forgets, repeats, hangs; workers die, sleep past their lease, are many."""

import json
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from faults.redisserver import Redis
from faults.report import Account
from faults.stage import PACE, PATIENCE, Child, Stage, bound, until
from pydantic import SecretStr

from service.broker import CeleryBell, celery_app
from service.settings import BrokerSettings, PaceSettings

pytestmark = pytest.mark.faults
quick = pytest.mark.quick
ENDED = {"CANCELING", "CANCELED", "FAILED"}  #: a run that was told to end: KFP says FAILED in the end
SLEEP = PACE["lease"] + PACE["settle"] + 2


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    one = Redis(tmp_path)
    yield one
    one.kill()


def api(stage: Stage, redis: Redis, failpoint: str = "") -> Child:
    return stage.api(failpoint, KFP_TRIGGERS_BROKER__URL=redis.url)


def worker(stage: Stage, redis: Redis, failpoint: str = "") -> Child:
    return stage.start("worker", failpoint=failpoint, KFP_TRIGGERS_BROKER__URL=redis.url)


def ring(redis: Redis, *rung: tuple[str, str]) -> None:
    """As if somebody had rung for these: messages of whatever age."""
    bell = CeleryBell(celery_app(BrokerSettings(url=SecretStr(redis.url))))
    for task, key in rung:
        bell.ring(task, key)
    bell.close()


def one_ended(children: Sequence[Child]) -> bool:
    return any(child.ended(within=0) is not None for child in children)


def answered(stage: Stage) -> float:
    """Seconds that a delivery took to be accepted."""
    began = time.monotonic()
    assert stage.post(stage.body()) == 202
    return time.monotonic() - began


@quick
def test_F09_without_redis_events_are_taken_and_run(stage: Stage, redis: Redis, account: Account) -> None:  # noqa: N802
    api(stage, redis)
    worker(stage, redis)
    assert max(answered(stage) for _ in range(3)) < 5
    account.recovered(stage.settled(3))
    assert max(account.seconds) <= bound()
    redis.start()
    stage.deliver()
    account.recovered(stage.settled(4))


def test_F10_redis_dies_with_tasks_in_flight(stage: Stage, redis: Redis, account: Account) -> None:  # noqa: N802
    redis.start()
    api(stage, redis)
    worker(stage, redis)
    stage.stub.fault("hang_before", method="POST", path="/runs$", seconds=0.3, times=12)
    for turn in range(1, 5):
        for _ in range(3):
            stage.deliver()
        redis.kill()
        time.sleep(0.2)
        redis.start()
        account.recovered(stage.settled(3 * turn))
        assert account.seconds[-1] <= bound()


@quick
def test_F11_redis_forgets_and_old_messages_come_back(stage: Stage, redis: Redis, account: Account) -> None:  # noqa: N802
    redis.start()
    api(stage, redis)
    for _ in range(4):
        stage.deliver()
        redis.says("FLUSHALL")
    worker(stage, redis)
    account.recovered(stage.settled(4))
    assert account.seconds[-1] <= bound()
    runs = stage.runs()
    old = [("events.decide", run.event_id) for run in runs] + [("runs.submit", run.run_key) for run in runs]
    ring(redis, *old, *old, ("runs.submit", "no-such-run"), ("events.decide", "no-such-event"))
    stage.deliver()
    account.recovered(stage.settled(5))


def test_F12_redis_is_a_black_hole(stage: Stage, redis: Redis, account: Account) -> None:  # noqa: N802
    redis.start()
    api(stage, redis)
    worker(stage, redis)
    stage.deliver()
    stage.settled(1)
    redis.signal(signal.SIGSTOP)
    try:
        assert max(answered(stage) for _ in range(5)) < 5
        account.recovered(stage.settled(6))
        assert account.seconds[-1] <= bound()
    finally:
        redis.signal(signal.SIGCONT)
    began = time.monotonic()
    stage.deliver()
    stage.settled(7)
    account.recovered(time.monotonic() - began)


@quick
@pytest.mark.parametrize("point", ["run.intent_written", "run.before_post", "run.after_post", "run.id_stored"])
def test_F13_a_worker_dies_in_the_middle_of_a_submission(  # noqa: N802
    stage: Stage, redis: Redis, account: Account, point: str
) -> None:
    redis.start()
    api(stage, redis, f"{point}=sleep:1")  # should the sweep be quicker: the worker must be the one who is there
    dying = worker(stage, redis, f"{point}=kill")
    until(lambda: redis.says("CLIENT", "LIST"), what="Redis has clients")
    stage.deliver()
    until(lambda: dying.ended(within=0) is not None or any(run.recorded_at for run in stage.runs()), what="it is done")
    worker(stage, redis)
    account.recovered(stage.settled(1))
    assert account.seconds[-1] <= bound(PACE["settle"])


@pytest.mark.parametrize("point", ["event.claimed", "run.after_post"])
def test_F13_at_the_default_pace_its_work_is_resumed_within_forty_seconds(  # noqa: N802
    stage: Stage, redis: Redis, account: Account, point: str
) -> None:
    """Lease 30 s, sweep 5 s: nothing of the pace is scaled down."""
    redis.start()
    default = {name.upper(): str(field.default) for name, field in PaceSettings.model_fields.items()}
    pace = {f"KFP_TRIGGERS_PACE__{name}": value for name, value in default.items()}
    broker = {"KFP_TRIGGERS_BROKER__URL": redis.url}
    stage.api(**broker, **pace)
    dying = stage.start("worker", failpoint=f"{point}=kill", **broker, **pace)
    until(lambda: "ready" in dying.log.read_text(), what="the worker listens")
    stage.deliver()
    until(lambda: dying.ended(within=0) is not None, what="it dies")
    assert dying.status == -signal.SIGKILL
    died = time.monotonic()
    stage.start("worker", **broker, **pace)
    stage.settled(1, within=100)
    account.recovered(time.monotonic() - died)
    assert account.seconds[-1] <= 30 + 5 + bound() - PACE["lease"] - PACE["sweep"]


def test_F14_every_process_dies_in_the_middle_of_a_submission(  # noqa: N802
    stage: Stage, redis: Redis, account: Account, chance: random.Random
) -> None:
    redis.start()
    points = ["run.intent_written", "run.before_post", "run.after_post", "run.id_stored", "run.watched"]
    for turn, point in enumerate(chance.sample(points, len(points)), 1):
        both = [api(stage, redis, f"{point}=kill"), worker(stage, redis, f"{point}=kill")]
        stage.deliver()
        until(partial(one_ended, both), what=f"{point} is reached")
        for one in both:
            if one.ended(within=0) is None:
                one.kill()
        both = [api(stage, redis), worker(stage, redis)]
        account.recovered(stage.settled(turn))
        assert account.seconds[-1] <= bound(PACE["settle"])
        for one in both:
            one.kill()


@quick
def test_F15_a_worker_that_slept_past_its_lease_sends_nothing(  # noqa: N802
    stage: Stage, redis: Redis, account: Account
) -> None:
    redis.start()
    asleep = worker(stage, redis, f"run.intent_written=sleep:{SLEEP}")
    api(stage, redis)
    stage.deliver()
    account.recovered(stage.settled(1))
    assert account.seconds[-1] <= bound(PACE["settle"])
    time.sleep(SLEEP)  # it wakes, and finds its claim gone
    assert asleep.ended(within=0) is None
    stage.settled(1)


def test_F15_what_a_worker_sends_that_slept_in_the_very_call_is_ended_and_named(  # noqa: N802
    stage: Stage, redis: Redis, account: Account
) -> None:
    """The one hole: nothing can be looked at between the last look at the clock and the first byte on the wire."""
    redis.start()
    stage.stub.script(running=2 * SLEEP)
    worker(stage, redis, f"run.before_post=sleep:{SLEEP}")
    time.sleep(1)
    body = stage.body()
    began = time.monotonic()
    api(stage, redis)
    stage.deliver(body)
    (run,) = until(stage.runs, what="it is decided")
    until(lambda: stage.stub.counts()["executed_keys"].get(run.run_key) == 2, SLEEP + PATIENCE, "the sleeper sent it")
    until(lambda: stage.command("verify", "--json")[0] == 1, what="the double is found")
    account.recovered(time.monotonic() - began)
    (double,) = json.loads(stage.command("verify", "--json")[1])["twice"]
    until(lambda: stage.stub.state(double.rpartition(" ")[2]) in ENDED, what="it is ended")
    (kept,) = stage.runs()
    assert double == f"run:{run.run_key} also as {double.rpartition(' ')[2]}"
    assert kept.backend_id != double.rpartition(" ")[2]
    assert stage.stub.state(kept.backend_id) in {"PENDING", "RUNNING", "SUCCEEDED"}
    metrics = httpx.get(f"http://127.0.0.1:{stage.port}/metrics").text
    assert re.search(r'^kfp_triggers_doubles{backend="default"} 1\.0$', metrics, re.MULTILINE), metrics


@quick
def test_F16_one_message_for_five_workers(stage: Stage, redis: Redis, account: Account) -> None:  # noqa: N802
    redis.start()
    alone = api(stage, redis, "event.stored=kill")  # nobody is rung for, nothing is decided
    assert stage.post(stage.body()) == 0
    assert alone.ended() is not None
    with stage.store() as store:
        (event_id,) = store.events.due(datetime.now(UTC), 10)
    for _ in range(5):
        worker(stage, redis)
    ring(redis, *[("events.decide", event_id)] * 25)
    account.recovered(stage.settled(1))
    (run,) = stage.runs()
    ring(redis, *[("runs.submit", run.run_key)] * 25)
    stage.settled(1)
