"""The supervisor with real processes: what it starts is up, stays up, and is gone when the supervisor is."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import supervise
from service.errors import Refused
from service.supervise import Process, Supervisor

SERVE = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(600)"
WITH_CHILDREN = f"import subprocess; subprocess.Popen(['sleep', '600']); {SERVE}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
TELLS_ITS_END = """
import pathlib, signal, sys
def end(*_):
    with open("../ends", "a") as file:
        print(pathlib.Path.cwd().name, file=file)
    sys.exit()
signal.signal(signal.SIGTERM, end)
""" + SERVE.replace("time.sleep(600)", "[time.sleep(1) for _ in range(600)]")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes_in(tmp_path):
        os.kill(pid, signal.SIGKILL)


def process(home: Path, name: str, program: str, **more: Any) -> Process:
    cwd = home / name
    cwd.mkdir(exist_ok=True)
    (cwd / "up").unlink(missing_ok=True)
    given = {"env": dict(os.environ), "cwd": cwd, "ready": (cwd / "up").exists, "within": 20, **more}
    return Process(name=name, argv=[sys.executable, "-c", program], **given)


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def processes_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
    return found


def test_a_process_is_up_with_its_log_and_the_leash_and_gone_afterwards(home: Path) -> None:
    said: list[str] = []
    with Supervisor(home, said.append) as supervisor:
        tells = "import os; print(os.environ['KFP_TRIGGERS_LOCAL__LEASH'], flush=True); "
        supervisor.start(process(home, "a", tells + WITH_CHILDREN))
        assert supervisor.log("a").read_text().strip() == str(home / "leash")
        assert Path(f"/proc/{supervisor.pid('a')}/cwd").readlink() == home / "a"
        assert (home / "leash").stat().st_mode & 0o777 == 0o600
        assert len(processes_in(home)) == 3  # itself, its child, its watcher
    assert not processes_in(home)
    assert [word.split(" (")[0] for word in said] == ["a is up"]


def test_a_process_that_ends_before_it_is_ready_is_quoted(home: Path) -> None:
    with Supervisor(home) as supervisor:
        with pytest.raises(
            Refused, match=r"a ended with code 3 before it was ready; the end of .*a\.log:\n  no such port"
        ):
            supervisor.start(process(home, "a", "print('no such port'); raise SystemExit(3)"))
        with pytest.raises(Refused, match=r"a was not ready within 0\.3 s"):
            supervisor.start(process(home, "a", SERVE, ready=lambda: False, within=0.3))
        with pytest.raises(Refused, match="nowhere: No such file"):
            supervisor.start(Process(name="b", argv=["nowhere"], env={}, ready=lambda: False))
        assert not processes_in(home)


def test_a_dead_process_is_started_again_and_what_it_left_is_ended(home: Path) -> None:
    said: list[str] = []
    with Supervisor(home, said.append) as supervisor:
        supervisor.start(process(home, "a", WITH_CHILDREN))
        first = supervisor.pid("a")
        (home / "a/up").unlink()
        os.kill(first, signal.SIGKILL)  # the command alone: its child lives on for a moment
        until((home / "a/up").exists)
        assert supervisor.restarts("a") == 1
        assert supervisor.pid("a") != first
        until(lambda: len(processes_in(home)) == 3)
        supervisor.kill("a")
        until(lambda: supervisor.restarts("a") == 2)
    assert not processes_in(home)
    assert any("a died (code -9); starting it again in 0.5 s" in word for word in said)


def test_one_that_is_not_to_be_restarted_stays_dead(home: Path) -> None:
    with Supervisor(home) as supervisor:
        supervisor.start(process(home, "a", SERVE, restart=False))
        supervisor.kill("a")
        until(lambda: not processes_in(home))
        supervisor.start(process(home, "b", SERVE))
        assert supervisor.restarts("a") == 0


def test_the_end_is_in_reverse_order_and_a_stubborn_one_is_killed(home: Path) -> None:
    said: list[str] = []
    with Supervisor(home, said.append) as supervisor:
        for name in ("a", "b", "c"):
            supervisor.start(process(home, name, TELLS_ITS_END))
        supervisor.start(process(home, "d", STUBBORN, grace=0.3))
    assert (home / "ends").read_text().split() == ["c", "b", "a"]
    assert said[-1] == "d did not end by itself: killed"
    assert not processes_in(home)


def test_an_exception_leaves_nothing_behind(home: Path) -> None:
    def fail() -> None:
        with Supervisor(home) as supervisor:
            supervisor.start(process(home, "a", WITH_CHILDREN))
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert not processes_in(home)


def test_one_supervisor_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_HOME_FREE_WITHIN", 0.3)
    with Supervisor(home), pytest.raises(Refused, match="another kfp-triggers runs in"):
        Supervisor(home).__enter__()


SUPERVISES = f"""
import contextlib, sys
from pathlib import Path
from service.supervise import Process, Supervisor
home = Path(sys.argv[1])
with contextlib.suppress(KeyboardInterrupt, SystemExit), Supervisor(home) as supervisor:
    for name, program in (("a", {WITH_CHILDREN!r}), ("b", {STUBBORN!r})):
        (home / name).mkdir(exist_ok=True)
        argv = [sys.executable, "-c", program]
        up = (home / name / "up").exists
        supervisor.start(Process(name=name, argv=argv, env={{}}, cwd=home / name, ready=up, grace=2))
    print("all up", flush=True)
    supervisor.wait()
print("all down", flush=True)
"""


@contextlib.contextmanager
def supervised(home: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", SUPERVISES, str(home)]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout
        assert [one.stdout.readline()[:7] for _ in range(3)] == ["a is up", "b is up", "all up\n"]
        try:
            yield one
        finally:
            one.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(home: Path, number: int) -> None:
    with supervised(home) as one:
        one.send_signal(number)
        assert one.communicate(timeout=15)[0].splitlines()[-1] == "all down"
        assert one.returncode == 0
    assert not processes_in(home)


def test_a_killed_supervisor_takes_all_along_and_the_next_one_waits_for_that(home: Path) -> None:
    with supervised(home) as one:
        assert len(processes_in(home)) == 5
        os.kill(one.pid, signal.SIGKILL)
        for name in "ab":
            (home / name / "up").unlink()
        with Supervisor(home):
            assert not processes_in(home)
