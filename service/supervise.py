"""Starts processes, waits until they are ready, restarts them when they die, and leaves none behind.

Used by `kfp-triggers up`, by the demo and by the acceptance tests, with the processes that `service.embedded`
describes. Its children are bound to it by a FIFO, the leash, that it alone holds open: see `service.supervised`; local
runs hang on it too. It knows nothing of what it runs.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from service.errors import Refused

LEASH_VARIABLE = "KFP_TRIGGERS_LOCAL__LEASH"

_SUPERVISED = Path(__file__).with_name("supervised.py")
_LOOK_EVERY = 0.1
_BACKOFF = (0.5, 10.0)
_SOUND_AFTER = 30.0  #: seconds of life after which the next death counts as the first
_ALL_STOPPED_WITHIN = 15.0
_RUNS_ENDED_WITHIN = 8.0  #: a local run has five seconds to end itself
_ORPHANS_GRACE = 5.0  #: when the supervisor is gone, there is nobody left to be patient for
_HOME_FREE_WITHIN = 20.0
_LOG_AT_MOST = 8 << 20
_TAIL_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Process:
    """What to run, and how to tell that it is up."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  #: all of it
    ready: Callable[[], bool] | None = None  #: asked again and again; must not raise and not take long
    within: float = 60.0  #: seconds
    cwd: Path | None = None
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0  #: between that signal and KILL
    restart: bool = True


@dataclass
class _Running:
    process: Process
    popen: "subprocess.Popen[bytes]"
    since: float = field(default_factory=time.monotonic)
    watched: bool = False  #: restarted when it dies: only once it was ready
    restarts: int = 0
    backoff: float = _BACKOFF[0]
    due: float | None = None  #: when to start it again


class Supervisor:
    """A context: whatever was started in it has ended when it is left, however it is left."""

    def __init__(self, home: Path, echo: Callable[[str], None] = print) -> None:
        self.home = home.absolute()
        self.leash = self.home / "leash"
        self._echo = echo
        self._running: dict[str, _Running] = {}
        self._turn = threading.RLock()
        self._over = threading.Event()
        self._hurry = False
        self._handles: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        (self.home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handles.append(self._own_home())
        # A new FIFO each time: those who still hang on an earlier one must never see it come alive again.
        self.leash.unlink(missing_ok=True)
        os.mkfifo(self.leash, 0o600)
        self._handles.append(os.open(self.leash, os.O_RDWR))
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._signalled)
        threading.Thread(target=self._look_after, name="supervisor", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._over.set()
        deadline = time.monotonic() + _ALL_STOPPED_WITHIN
        with self._turn:
            for name in reversed(self._running):
                self._end(self._running[name], deadline)
            self._running.clear()
        for handle in reversed(self._handles):
            os.close(handle)
        self._await_runs()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self, *processes: Process) -> None:
        """Start them side by side and wait until all are ready; Refused, with the end of its log, when one is not."""
        began = time.monotonic()
        for process in processes:
            with self._turn:
                if process.name in self._running:
                    raise Refused(f"{process.name} runs already")
                self._running[process.name] = _Running(process, self._spawn(process))
        waiting = [self._running[process.name] for process in processes]
        try:
            while waiting := [one for one in waiting if not self._is_up(one, began + one.process.within)]:
                time.sleep(0.05)
        except Refused:
            for process in processes:
                self.stop(process.name)
            raise

    def stop(self, name: str) -> None:
        """End it in order, and for good."""
        with self._turn:
            running = self._running.pop(name)
            self._end(running, time.monotonic() + running.process.grace)

    def kill(self, name: str) -> None:
        """As a crash would: it and its children, without a word. It is restarted if it should be."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid(name), signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Of the command itself, which is its process group's number too."""
        return self._running[name].popen.pid

    def process(self, name: str) -> Process:
        """What it was started from: to start it again after `stop`."""
        return self._running[name].process

    def restarts(self, name: str) -> int:
        """How often it died and was started again."""
        return self._running[name].restarts

    def log(self, name: str) -> Path:
        """Where its output goes."""
        return self.home / "logs" / f"{name}.log"

    def wait(self) -> None:
        """Until Ctrl-C or SIGTERM."""
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            while True:
                time.sleep(3600)

    def _own_home(self) -> int:
        """One supervisor a home. The watchers of its children hold this lock too: a killed one's must end first."""
        handle = os.open(self.home / ".supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline, told = time.monotonic() + _HOME_FREE_WITHIN, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    raise Refused(f"another kfp-triggers runs in {self.home}: end it, or choose another home") from None
                if not told:
                    self._echo(f"something runs in {self.home} already: waiting for it to end")
                told = True
                time.sleep(0.2)
            else:
                return handle

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if self._over.is_set():
            self._hurry = True  # a second Ctrl-C
            return
        self._over.set()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _spawn(self, process: Process) -> "subprocess.Popen[bytes]":
        log = self.log(process.name)
        if log.exists() and log.stat().st_size > _LOG_AT_MOST:
            log.replace(log.with_suffix(".log.1"))
        lock = self._handles[0]
        binding = [str(self.leash), str(lock), str(int(process.stop_signal)), str(min(process.grace, _ORPHANS_GRACE))]
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISED), *binding, *map(str, process.argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=process.cwd,
                env={**process.env, LEASH_VARIABLE: str(self.leash)},
                pass_fds=(lock,),
                start_new_session=True,  # the terminal's Ctrl-C is for us; we end the others in order
            )

    def _is_up(self, running: _Running, deadline: float) -> bool:
        process = running.process
        if (code := running.popen.poll()) is not None:
            raise Refused(f"{process.name} ended with code {code} before it was ready{self._last_words(process)}")
        if process.ready is not None and not process.ready():
            if time.monotonic() > deadline:
                raise Refused(f"{process.name} was not ready within {process.within:g} s{self._last_words(process)}")
            return False
        running.watched = process.restart
        self._echo(f"{process.name} is up ({time.monotonic() - running.since:.1f} s)")
        return True

    def _last_words(self, process: Process) -> str:
        log = self.log(process.name)
        lines = log.read_bytes()[-16384:].decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return f"; the end of {log}:\n  " + "\n  ".join(lines)

    def _look_after(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            with self._turn:
                for running in self._running.values():
                    if running.watched and not self._over.is_set():
                        self._restart_if_dead(running)

    def _restart_if_dead(self, running: _Running) -> None:
        code, now = running.popen.poll(), time.monotonic()
        if code is None:
            return
        if running.due is None:
            _kill_group(running.popen.pid)  # what it left behind may hold its port
            if now - running.since > _SOUND_AFTER:
                running.backoff = _BACKOFF[0]
            self._echo(f"{running.process.name} died (code {code}); starting it again in {running.backoff:g} s")
            running.due = now + running.backoff
            running.backoff = min(running.backoff * 2, _BACKOFF[1])
        elif now >= running.due:
            running.popen, running.since, running.due = self._spawn(running.process), now, None
            running.restarts += 1

    def _end(self, running: _Running, deadline: float) -> None:
        popen, process = running.popen, running.process
        deadline = min(deadline, time.monotonic() + process.grace)
        if popen.poll() is None:
            popen.send_signal(process.stop_signal)
        while popen.poll() is None and time.monotonic() < deadline and not self._hurry:
            time.sleep(0.02)
        if popen.poll() is None:
            self._echo(f"{process.name} did not end by itself: killed")
        _kill_group(popen.pid)
        popen.wait()

    def _await_runs(self) -> None:
        """Local runs read the leash: as long as it can be opened for writing, somebody does."""
        deadline = time.monotonic() + _RUNS_ENDED_WITHIN
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline and not self._hurry:
                os.close(os.open(self.leash, os.O_WRONLY | os.O_NONBLOCK))
                time.sleep(0.1)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
