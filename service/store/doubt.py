"""When SQLite shows more than the disk has, and what is done before anything is written or acknowledged again.

After a disk error the file is opened anew and checked: the kernel may drop what it could not write and say so once, so
that the next fsync succeeds and means nothing (https://wiki.postgresql.org/wiki/Fsync_Errors). And a commit that died
before its fsync is in the log all the same: whoever opens it next finds the row, and would tell the sender's repeat
that it is known. A full checkpoint writes all of the log into the database and syncs that. Until then every write is
Temporary: the door answers 503, /readyz too; reads go on. PostgreSQL does the like by itself. Called by
`service.store.database`, and by the writer when it begins.
"""

import threading
from contextlib import closing

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from service.errors import Temporary
from service.log import logger

SIGNS = ("disk I/O error", "database disk image is malformed")  #: SQLITE_IOERR and SQLITE_CORRUPT, in SQLite's words


class Doubt:
    """Of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._raised = False
        if engine.dialect.name == "sqlite":
            event.listen(engine, "handle_error", self._see)

    def clear(self) -> None:
        """Nothing while there is no doubt; else open anew and check. Temporary when that does not end it."""
        if not self._raised:
            return
        with self._lock:
            if self._raised:
                self._engine.dispose()
                self.settle("pragma quick_check(1)")
                self._raised = False
                logger.warning("store_reopened")

    def settle(self, check: str = "select 'ok'") -> None:
        """See that what can be read is on the disk, and passes the check; Temporary where that cannot be said."""
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._engine.connect() as connection, closing(connection.connection.cursor()) as cursor:
                busy, *_ = cursor.execute("pragma wal_checkpoint(full)").fetchone()  # outside of any transaction
                (found,) = cursor.execute(check).fetchone()
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise Temporary(f"the store's disk fails: {error}", delay=5.0) from error
        if found != "ok":
            raise Temporary(f"the store's file is damaged: {found}; restore it from a backup", delay=30.0)
        if busy:
            raise Temporary("the store is busy and cannot be synced", delay=1.0)

    def _see(self, context: ExceptionContext) -> None:
        if not self._raised and any(sign in str(context.original_exception) for sign in SIGNS):
            self._raised = True
            logger.error("store_in_doubt", error=str(context.original_exception))
