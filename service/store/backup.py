"""A copy of the store while it is in use, and the way back. SQLite only: PostgreSQL has its own tools.

Called by `kfp-triggers backup` and `restore`. A copy counts only once it is checked and on the disk, under its name by
one rename; so does what is put back.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.script import ScriptDirectory

from service.errors import Refused
from service.records import Handling
from service.settings import StoreSettings
from service.store import dead
from service.store.database import Database, micros
from service.store.migrate import upgrade
from service.store.sqlite import sqlite_module
from service.store.tables import lease, scan


def file_of(settings: StoreSettings) -> Path:
    """The store's file; Refused with PostgreSQL's own command where it is none."""
    url = sqlalchemy.make_url(settings.url)
    if not settings.url.startswith("sqlite"):
        name = url.database or "kfp_triggers"
        raise Refused(
            "the store is on PostgreSQL, which has its own tools:\n"
            f"  pg_dump --format=custom --file=kfp-triggers.dump --host={url.host or 'localhost'} {name}\n"
            f"  pg_restore --clean --if-exists --dbname={name} kfp-triggers.dump   # with every process stopped\n"
            "then, so that runs of the time since are found again and not made twice: kfp-triggers restore --mark"
        )
    return Path(url.database or "")


def back_up(source: Path, target: Path) -> int:
    """A checked copy of the store as of one moment, beside whoever writes to it; its size in bytes."""
    if target.exists():
        raise Refused(f"{target} is there already: name another file")
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # it holds what senders told
        with _opened(source) as connection:
            connection.execute("vacuum into ?", (str(part),))
        check(part)
        _settle(part)
        part.rename(target)
        _settle(target.parent)
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def check(file: Path) -> str:
    """The schema of a copy; Refused where it is no whole store, or one of a newer version."""
    if not file.is_file():
        raise Refused(f"there is no file {file}")
    try:
        with _opened(file, "?mode=ro") as connection:
            found = connection.execute("pragma integrity_check").fetchone()[0]
            schema = str(connection.execute("select version_num from alembic_version").fetchone()[0])
    except sqlite_module().DatabaseError as error:
        raise Refused(f"{file} is no store of kfp-triggers, or is damaged: {error}") from error
    if found != "ok":
        raise Refused(f"{file} is damaged: {found}")
    known = [one.revision for one in ScriptDirectory(str(Path(__file__).parent / "migrations")).walk_revisions()]
    if schema not in known:
        raise Refused(f"{file} has the schema {schema}, this version knows {known[0]}: use the version that wrote it")
    return schema


def restore(settings: StoreSettings, file: Path, done: Handling, *, force: bool) -> tuple[Path | None, str]:
    """Put a copy in the store's place; where the store from before lies now, and the copy's schema.

    The copy is brought to this version's schema and marked, so that each run that it does not know to be submitted is
    searched for in its backend first.
    """
    store = file_of(settings)
    schema = check(file)
    if store.exists() and not force:
        raise Refused(f"there is a store at {store}: --force puts it aside and this one in its place")
    store.parent.mkdir(parents=True, exist_ok=True)
    new = store.with_name(f".{store.name}.restoring")
    _remove(new)
    try:
        shutil.copyfile(file, new)
        new.chmod(0o600)
        _prepare(settings.model_copy(update={"url": f"sqlite:///{new}"}), done)
        _settle(new)
        aside = _put_aside(store, done.at)
        new.replace(store)
        _settle(store.parent)
    finally:
        _remove(new)
    return aside, schema


def mark(database: Database, done: Handling) -> None:
    """Say that the store was put back now. What objects came since the backup, scans do not tell of again."""
    with database.write() as connection:
        dead.note(connection, done)
        connection.execute(scan.delete())


def _prepare(settings: StoreSettings, done: Handling) -> None:
    database = Database(settings)
    try:
        upgrade(database)
        mark(database, done)
        with database.write() as connection:
            connection.execute(lease.delete())  # of whoever ran when the copy was made
    finally:
        database.close()
    with _opened(Path(sqlalchemy.make_url(settings.url).database or "")) as connection:
        connection.execute("pragma journal_mode=delete")  # nothing of it is left in a journal beside it


def _put_aside(store: Path, now: datetime) -> Path | None:
    """Keep what is there under another name, journal and all; Refused while somebody works with it."""
    if not store.exists():
        return None
    try:
        with _opened(store) as connection:
            held = connection.execute("select name, holder from lease where until >= ?", (micros(now),)).fetchall()
            connection.execute("pragma wal_checkpoint(truncate)")
    except sqlite_module().DatabaseError as error:
        if "locked" in str(error):
            raise Refused(f"{store} is in use ({error}): stop every process on it first") from error
        held = []  # damaged: that is why it is replaced
    if held:
        names = ", ".join(sorted({holder for _, holder in held}))
        raise Refused(f"{store} is in use by {names}: stop every process on it first, and wait for its lease to end")
    aside = store.with_name(f"{store.name}.before-{now:%Y%m%dT%H%M%S%f}")
    for journal in ("-wal", "-shm"):
        beside = Path(f"{store}{journal}")
        if beside.exists():
            beside.rename(f"{aside}{journal}")
    os.link(store, aside)
    return aside


@contextmanager
def _opened(path: Path, how: str = "?mode=rw") -> Iterator[Any]:
    connection = sqlite_module().connect(f"{path.absolute().as_uri()}{how}", uri=True, isolation_level=None, timeout=5)
    try:
        yield connection
    finally:
        connection.close()


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """On the disk, be it a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
