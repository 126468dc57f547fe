"""The guardian of one local run: starts it, watches it, ends it, and writes down how it ended.

`service.local` starts one a run (`python localrun.py RUN LOCK_FD [LEASH]`), in a session of its own and with the run's
lock already held: a flock belongs to the open file, so whoever inherits it holds it. It lives as long as the run and
knows nothing of KFP: that is `service.localsteps`, its child. Only the standard library: there may be many of them.

A run is a folder, and its state follows from three names in it: `lock` (held: alive), `started`, `result.json`.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOCK, JOB, PACKAGE, STARTED, RESULT = "lock", "job.json", "package.yaml", "started", "result.json"
CANCELLED = "cancelled"  #: somebody asked for the end
OUTCOME = "outcome.json"  #: what the steps' process has to say; the result is made of it
LOG = "run.log"
SECRETS = "KFP_TRIGGERS_RUN_SECRETS_FD"  #: names the pipe that the steps' process reads secret parameters from
ACTIVE = ".active"  #: beside the runs: one link for each that may be under way

_STEPS = Path(__file__).with_name("localsteps.py")
_TICK = 0.5  #: between two looks at the cancel mark
_PATIENCE = 5.0  #: between TERM and KILL
_PR_SET_CHILD_SUBREAPER = 36


def write(path: Path, value: Mapping[str, Any]) -> None:
    """The whole file or none of it, also after a power loss."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names are content of the folder: they need an fsync of their own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Verdict:
    """How a run ends, or why the guardian ends it."""

    state: str
    error: str = ""
    interrupted: bool = False
    failed_task: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Children:
    """The steps' process, its group, and on Linux every orphan of theirs."""

    pid: int  #: of the steps' process, which is its group's number too
    status: int | None = None

    def any_left(self) -> bool:
        """Reap what ended; say whether something still runs."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    self.status = status
        except ChildProcessError:
            return _group_lives(self.pid)

    def end(self) -> None:
        """TERM, then KILL, to all of them; nobody may write into the run's folder after its result is written."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _PATIENCE
            told: set[int] = set()
            while self.any_left() and time.monotonic() < deadline:
                self._signal(number, told)
                time.sleep(0.02)

    def _signal(self, number: int, told: set[int]) -> None:
        """Once to each: the group, and who left it by a session of its own and became our child as an orphan."""
        if self.pid not in told:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
        for pid in _own_children() - told - {self.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            told.add(pid)
        told.add(self.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _own_children() -> set[int]:
    """On Linux; elsewhere the process group must do."""
    try:
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    except OSError:
        return set()


def _adopt_orphans() -> None:
    """Steps whose parent is killed become our children and not init's: so that we can end them."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only here: it costs a megabyte

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class _Leash:
    """The read end of the supervisor's FIFO: end of file says that the supervisor is gone."""

    def __init__(self, path: str) -> None:
        self.handle = -1
        with contextlib.suppress(OSError):
            self.handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if path else -2

    def cut(self) -> bool:
        """Whether no supervisor holds the other end."""
        if self.handle == -2:  # not bound to one
            return False
        try:
            return self.handle == -1 or os.read(self.handle, 64) == b""
        except BlockingIOError:
            return False


class _Wakeups:
    """Signals and the leash interrupt the guardian's sleep."""

    def __init__(self, leash: _Leash) -> None:
        self.told_to_end = False
        self._read, write_end = os.pipe()
        for end in (self._read, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        if leash.handle >= 0:
            self._poll.register(leash.handle, 0)  # a hang-up is told of unasked

    def _end(self, *_: object) -> None:
        self.told_to_end = True

    def sleep(self) -> None:
        self._poll.poll(_TICK * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)


def main(arguments: list[str]) -> None:
    """Guard the run to its end."""
    run, lock, leash = Path(arguments[0]), int(arguments[1]), _Leash((arguments[2:] or [""])[0])
    _adopt_orphans()
    wakeups = _Wakeups(leash)
    began = _now()
    if (run / CANCELLED).exists():
        _finish(run, began, Verdict("cancelled", "cancelled before it started"))
        return
    write(run / STARTED, {"pid": os.getpid(), "started_at": began})
    sync_folder(run.parent)
    _tell_starter()
    job = json.loads((run / JOB).read_text())
    children = _start(run, lock)
    verdict = _watch(run, children, wakeups, leash, job["time_limit"])
    children.end()
    _finish(run, began, verdict or _own_end(run, children.status or 0))


def _tell_starter() -> None:
    """Our standard output is a pipe that the starter waits on: it closes once nobody can start this run again."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def _start(run: Path, lock: int) -> _Children:
    for folder in ("work", "tmp"):
        (run / folder).mkdir(exist_ok=True)
    life, ours = os.pipe()  # `ours` stays open here alone: it closes with us, however we end
    os.set_inheritable(ours, False)
    secrets = [int(os.environ[SECRETS])] if SECRETS in os.environ else []
    with (run / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", str(_STEPS), str(run), str(life)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=run / "work",  # not the run's folder: a step may write `result.json`
            env={**os.environ, "TMPDIR": str(run / "tmp"), "PYTHONUNBUFFERED": "1"},
            # The lock: so that the run counts as alive while the steps' process lives.
            pass_fds=(lock, life, *secrets),
            process_group=0,
        )
    for handle in (life, *secrets):
        os.close(handle)
    process.returncode = 0  # reaped by `_Children`, which waits for orphans too
    return _Children(process.pid)


def _watch(run: Path, children: _Children, wakeups: _Wakeups, leash: _Leash, limit: float) -> Verdict | None:
    """None when the run ended by itself, else why it must end."""
    deadline = time.monotonic() + limit
    while True:
        children.any_left()
        if children.status is not None:
            return None
        if (run / CANCELLED).exists():
            return Verdict("cancelled", "cancelled")
        if leash.cut():
            return Verdict("failed", "the supervisor ended while it ran", interrupted=True)
        if wakeups.told_to_end:
            return Verdict("failed", "its process was told to end (SIGTERM)", interrupted=True)
        if time.monotonic() > deadline:
            return Verdict("failed", f"it took longer than its time limit of {limit:g} s")
        wakeups.sleep()


def _own_end(run: Path, status: int) -> Verdict:
    """What the steps' process left, else how it died."""
    if (run / OUTCOME).exists():
        return Verdict(**json.loads((run / OUTCOME).read_text()))
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Verdict("failed", f"its process ended with exit code {code} and said nothing")
    hint = ": often the system's answer to too much memory" if code == -signal.SIGKILL else ""
    return Verdict("failed", f"killed by signal {-code} ({signal.Signals(-code).name}){hint}")


def _finish(run: Path, began: str, verdict: Verdict) -> None:
    write(run / RESULT, asdict(verdict) | {"started_at": began, "ended_at": _now()})
    with contextlib.suppress(OSError):
        (run.parent / ACTIVE / run.name).unlink()
    import shutil  # noqa: PLC0415 - most of the guardian's life does without

    shutil.rmtree(run / "tmp", ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    main(sys.argv[1:])
