"""The local backend: each run is `kfp.local` in processes of its own, beside the service and not inside it.

Fits `ports.Backend`. A run is the folder `runs/<run key>`; `service.localrun`, started here, owns it from then on, so
that runs outlive the API, the workers and Redis. State is derived from the folder alone: nothing is remembered here,
and any number of processes may call at once and be killed anywhere. Packages are read by `service.localpackages`.

A job's `experiment`, `caching`, `service_account` and `pipeline_root` mean nothing here: there is no cache and no
cluster, a run's artifacts lie in its folder, and its credentials are the environment that `local.env` lets through.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from service import localcheck
from service.errors import Permanent, Temporary
from service.ledger import Rate
from service.lifecycle import State
from service.localpackages import Packages, cannot_run
from service.localrun import ACTIVE, CANCELLED, JOB, LOCK, LOG, PACKAGE, RESULT, SECRETS, STARTED
from service.packages import compiled
from service.ports import Defaults, Finding, Job, Look, Observed, Pipeline, Version

_GUARDIAN = Path(__file__).with_name("localrun.py")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOG_AT_MOST = 1 << 20
_STARTS_WITHIN = 10.0
_PIPE_HOLDS = 16 << 10  #: bytes, on every system


class LocalBackend:
    """Runs pipelines on this machine."""

    kind = "local"
    settle = 0.0  #: `find` is exact: the folder tells
    rate: Rate | None = None

    def __init__(
        self, packages: Path, runs: Path, leash: Path | None, max_parallel: int, env: Mapping[str, str]
    ) -> None:
        """`env` is all that a run sees of the environment; without a `leash` a run is bound to no supervisor."""
        self.defaults = Defaults()
        self._packages = Packages(packages)
        self._runs = runs.absolute()
        self._leash = leash
        self._max_parallel = max_parallel
        self._env = {"PATH": os.defpath, **env}
        self._guardians: list[int] = []

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline behind `name@version`, or `name@latest`; Permanent when there is none."""
        return self._packages.pipeline(reference)

    def find(self, run_key: str) -> Sequence[str]:
        """The run key when the run has begun; nothing when it surely has not."""
        if not (run := self._run(run_key)).exists():
            return []
        with _disk_troubles(), _turn(run) as lock:
            return [run_key] if lock is None else []

    def has_room(self) -> bool:
        """Whether another run may begin now. A guess, taken without a lock: `create` decides."""
        with _disk_troubles():
            return not (self._runs / ACTIVE).exists() or self._busy() < self._max_parallel

    def create(self, job: Job) -> str:
        """Start it unless it has begun. Once this returned, it has begun and never will again."""
        self._reap()
        run = self._run(job.run_key)
        with _disk_troubles():
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _turn(run) as lock:
                if lock is not None:
                    with self._slot(run):
                        self._prepare(run, job)
                        self._start(run, lock, job.secrets)
        return job.run_key

    def observe(self, backend_ids: Sequence[str], *, awaited: bool = False) -> Look:  # noqa: ARG002 - of the port
        """Costs one small read for a run that ended."""
        self._reap()
        return Look(seen={one: _observe(self._run(one)) for one in backend_ids})

    def cancel(self, backend_id: str) -> None:
        """A mark that the guardian sees within half a second; no signal, whose number may be another's by now."""
        run = self._run(backend_id)
        if run.exists() and not (run / RESULT).exists():
            with _disk_troubles():
                (run / CANCELLED).touch()

    def retry(self, backend_id: str) -> None:
        """Never: a folder is one execution."""
        raise Permanent(f"a local run is not taken up again: start {backend_id} again with `runs retry --new`")

    def link(self, backend_id: str) -> str:  # noqa: ARG002  # the port's
        """There is no page."""
        return ""

    def versions(self, name: str = "") -> Sequence[Version]:
        """The folder's packages."""
        with _disk_troubles():
            return self._packages.versions(name)

    def push(self, name: str, version: str, content: bytes) -> bool:
        """As a file of the folder."""
        with _disk_troubles():
            return self._packages.push(name, version, content)

    def check(self) -> Sequence[Finding]:
        """What runs need here: kfp, a place, packages."""
        return [*localcheck.check(self._runs), *self._packages.check()]

    def log(self, backend_id: str) -> str:
        """The last MiB of what it printed, without colours."""
        try:
            with (self._run(backend_id) / LOG).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_AT_MOST))
                return _ANSI.sub("", file.read(_LOG_AT_MOST).decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def _run(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise Permanent(f"not a run key of this backend: {key[:100]!r}")
        return self._runs / key

    def _reap(self) -> None:
        """Guardians that ended stay zombies until their parent asks."""
        for pid in self._guardians.copy():
            with contextlib.suppress(ValueError):  # another thread was faster
                if _ended(pid):
                    self._guardians.remove(pid)

    def _busy(self, apart_from: str = "") -> int:
        """How many runs are under way."""
        marks = (self._runs / ACTIVE).iterdir()
        return sum(_still_active(mark) for mark in marks if mark.name != apart_from)

    @contextlib.contextmanager
    def _slot(self, run: Path) -> Iterator[None]:
        """Under one lock for all: count what runs, and start one more or refuse."""
        active = self._runs / ACTIVE
        active.mkdir(exist_ok=True)
        handle = os.open(self._runs / ".slots", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if (busy := self._busy(run.name)) >= self._max_parallel:
                told = f"{busy} local runs are under way, as many as local.max_parallel allows"
                raise Temporary(told, delay=2, nothing_happened=True)
            (active / run.name).touch()
            yield
        finally:
            os.close(handle)

    def _prepare(self, run: Path, job: Job) -> None:
        """The run keeps its own copy of all it needs; half-written files are written anew, for it has not begun."""
        (run / PACKAGE).write_bytes(self._content(job))
        types = {name: one.type for name, one in job.pipeline.inputs.items()}
        plain = {"run_key": job.run_key, "display_name": job.display_name, "digest": job.pipeline.digest}
        plain["pipeline"] = f"{job.pipeline.name}@{job.pipeline.version}"
        told = {**plain, "params": dict(job.params), "types": types, "time_limit": job.time_limit}
        (run / JOB).write_text(json.dumps(told))

    def _content(self, job: Job) -> bytes:
        """What the job brings along, or what the folder has of it; Permanent when kfp.local could not run it."""
        content = job.package.content if job.package else self._packages.content(job.pipeline)
        if (package := compiled(content, job.pipeline.reference)).containers:
            raise Permanent(cannot_run(package))
        if job.package and job.package.upload:
            self._packages.push(job.pipeline.name, job.pipeline.version, content)
        return content

    def _start(self, run: Path, lock: int, secrets: Mapping[str, str]) -> None:
        """The guardian inherits the held lock; it closes its standard output when it has noted that it began."""
        leash = [str(self._leash)] if self._leash else []
        with (run / LOG).open("ab") as log, _told_in_secret(secrets) as (inherited, told):
            guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARDIAN), str(run), str(lock), *leash],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=run,
                env={**self._env, **told},
                start_new_session=True,
                pass_fds=(lock, *inherited),
            )
        guardian.returncode = 0  # it outlives this object; `_reap` waits for it
        self._guardians.append(guardian.pid)
        assert guardian.stdout is not None  # noqa: S101 - PIPE; for the type checker
        with guardian.stdout:
            waiter = select.poll()
            waiter.register(guardian.stdout, select.POLLIN)
            waiter.poll(_STARTS_WITHIN * 1000)
        if not _begun(run):
            raise Temporary(f"the guardian of {run.name} did not start: {self.log(run.name)[-300:].strip()}")


@contextlib.contextmanager
def _disk_troubles() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise Temporary(f"the local runs' folder: {problem}") from problem


@contextlib.contextmanager
def _told_in_secret(secrets: Mapping[str, str]) -> Iterator[tuple[Sequence[int], Mapping[str, str]]]:
    """Secret parameters go to the steps' process through a pipe: not on a disk, a command line or an environment."""
    if not secrets:
        yield (), {}
        return
    content = json.dumps(secrets).encode()
    if len(content) > _PIPE_HOLDS:
        raise Permanent(f"the secret parameters have {len(content)} bytes, more than {_PIPE_HOLDS}")
    read, write = os.pipe()
    try:
        os.write(write, content)
        os.close(write)
        yield (read,), {SECRETS: str(read)}
    finally:
        os.close(read)


@contextlib.contextmanager
def _turn(run: Path) -> Iterator[int | None]:
    """The run's lock, held: nobody else can begin it. None when it has begun."""
    deadline = time.monotonic() + _STARTS_WITHIN
    handle = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _begun(run):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            # Somebody starts it or looks at it. If that one dies, the turn is ours: so wait for one of both.
            if time.monotonic() > deadline:
                raise Temporary(f"{run.name} is being started by another process", delay=1)
            time.sleep(0.02)
        yield None if _begun(run) else handle
    finally:
        os.close(handle)


def _ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:  # after a fork it is the parent's
        return True


def _begun(run: Path) -> bool:
    return (run / STARTED).exists() or (run / RESULT).exists()


def _alive(run: Path) -> bool:
    """Whether somebody holds its lock."""
    try:
        handle = os.open(run / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _still_active(mark: Path) -> bool:
    if _alive(mark.parent.parent / mark.name):
        return True
    mark.unlink(missing_ok=True)
    return False


def _observe(run: Path) -> Observed:
    if (ended := _read(run / RESULT)) is not None:
        return _observed(ended)
    if not run.exists():
        return Observed(state=State.GONE, error="its folder is gone")
    alive = _alive(run)  # asked before the files: it may end meanwhile
    if (ended := _read(run / RESULT)) is not None:
        return _observed(ended)
    started = _read(run / STARTED) or {}
    began = _time(started.get("started_at"))
    if alive:
        return Observed(state=State.RUNNING if started else State.SUBMITTED, started_at=began)
    error = "its process ended without a result" if started else "it was never started"
    return Observed(state=State.FAILED, error=error, started_at=began, interrupted=True)


def _observed(ended: Mapping[str, Any]) -> Observed:
    return Observed(
        state=State(ended["state"]),
        error=ended["error"],
        failed_task=ended["failed_task"],
        started_at=_time(ended["started_at"]),
        ended_at=_time(ended["ended_at"]),
        outputs=ended["outputs"],
        interrupted=ended["interrupted"],
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return value


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
