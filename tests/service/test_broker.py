"""The doorbell: ringing never blocks and never raises, and losing a ring is said once."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from service import embedded
from service.broker import CeleryBell, InlineBell, NoBell, celery_app
from service.settings import BrokerSettings
from service.supervise import Supervisor


def until(true: Callable[[], Any], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def value(name: str) -> float:
    return REGISTRY.get_sample_value(f"kfp_triggers_{name}") or 0.0


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens, kept from everybody else."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def bell_on() -> Iterator[Callable[[str], CeleryBell]]:
    with contextlib.ExitStack() as stack:

        def made(url: str) -> CeleryBell:
            bell = CeleryBell(celery_app(BrokerSettings(url=SecretStr(url))))
            stack.callback(bell.close)
            return bell

        yield made


def test_the_decisions_about_celery_hold() -> None:
    """Each of these was paid for; the module says why."""
    conf = celery_app(BrokerSettings(url=SecretStr("redis://127.0.0.1:1/0"), queue="ours")).conf
    assert conf.task_acks_late is False
    assert conf.task_ignore_result is True
    assert conf.result_backend is None
    assert conf.task_default_queue == "ours"
    assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
    assert conf.worker_prefetch_multiplier == 1
    assert conf.worker_enable_remote_control is False
    assert conf.broker_transport_options["socket_timeout"] == 5


def test_a_ring_arrives_as_a_name_and_an_id(tmp_path: Path, bell_on: Callable[[str], CeleryBell]) -> None:
    port = embedded.ports(tmp_path, ["redis"])["redis"]
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(embedded.redis(tmp_path, port))
        url = embedded.redis_url(tmp_path, port)
        bell = bell_on(url)
        bell.ring("events.decide", "E1")
        with redis.Redis.from_url(url) as client:
            until(lambda: client.llen("kfp-triggers") == 1)
            assert bell.waiting() == 1
            (message,) = client.lrange("kfp-triggers", 0, -1)
            assert b'"task": "events.decide"' in message  # type: ignore[operator]
            until(lambda: value("broker_up") == 1)
            lost = value("rings_lost_total")
            with capture_logs() as logs:
                supervisor.stop("redis")
                for number in range(3):
                    bell.ring("events.decide", f"LOST{number}")
                until(lambda: value("rings_lost_total") == lost + 3)
                assert bell.waiting() == 0
                supervisor.start(embedded.redis(tmp_path, port))
                bell.ring("events.decide", "E2")
                until(lambda: client.llen("kfp-triggers") == 2)
                until(lambda: value("broker_up") == 1)
            assert [one["event"] for one in logs] == ["broker_away", "broker_back"]
            client.close()


def test_a_ring_for_nobody_is_lost_and_counted(nobody: int, bell_on: Callable[[str], CeleryBell]) -> None:
    lost = value("rings_lost_total")
    with capture_logs() as logs:
        bell = bell_on(f"redis://:canary-password@127.0.0.1:{nobody}/0")
        for number in range(3):
            bell.ring("events.decide", str(number))
        until(lambda: value("rings_lost_total") == lost + 3)
    assert value("broker_up") == 0
    assert [one["event"] for one in logs] == ["broker_away"]
    assert "canary" not in str(logs)


def test_a_broker_that_never_answers_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.broker.BACKLOG", 10)
    monkeypatch.setattr("service.broker.CLOSING", 0.1)
    lost = value("rings_lost_total")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes the connection, and never says a word
        bell = CeleryBell(celery_app(BrokerSettings(url=SecretStr(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"))))
        started = time.monotonic()
        for number in range(1000):
            bell.ring("events.decide", str(number))
        bell.close()
        assert time.monotonic() - started < 3
    assert value("rings_lost_total") >= lost + 989
    monkeypatch.setattr("service.broker.CLOSING", 15)
    bell.close()  # the connections broke: now it ends, and counts nothing into another test
    assert not bell._thread.is_alive()


def test_a_bell_survives_whatever_goes_wrong(bell_on: Callable[[str], CeleryBell]) -> None:
    bell = bell_on("nonsense://host")
    lost = value("rings_lost_total")
    with capture_logs() as logs:
        for number in range(2):
            bell.ring("events.decide", str(number))
        until(lambda: value("rings_lost_total") == lost + 2)
    assert [one["event"] for one in logs] == ["ring_failed", "ring_failed"]


def test_without_a_broker_the_process_does_it_itself() -> None:
    done: list[tuple[str, str]] = []
    both = threading.Barrier(2, timeout=10)

    def step(name: str, key: str) -> None:
        both.wait()
        done.append((name, key))

    bell = InlineBell(step, threads=2)
    bell.ring("events.decide", "E1")
    bell.ring("events.decide", "E2")
    bell.close()
    assert sorted(done) == [("events.decide", "E1"), ("events.decide", "E2")]


def test_a_step_that_fails_ends_no_thread() -> None:
    done: list[str] = []

    def step(_name: str, key: str) -> None:
        if key == "bad":
            raise ValueError("a mistake of ours")
        done.append(key)

    with capture_logs() as logs:
        bell = InlineBell(step, threads=1)
        for key in ("bad", "good"):
            bell.ring("events.decide", key)
        bell.close()
    assert done == ["good"]
    assert [(one["event"], one["key"]) for one in logs] == [("step_failed", "bad")]


def test_closing_finishes_what_was_rung() -> None:
    done: list[str] = []
    bell = InlineBell(lambda _name, key: done.append(key), threads=3)
    for number in range(500):
        bell.ring("events.decide", str(number))
    bell.close()
    assert len(done) == 500


def test_no_bell_is_heard_by_nobody() -> None:
    NoBell().ring("events.decide", "E1")
