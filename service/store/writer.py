"""Group commit without a timer: one thread writes whatever has arrived since its last commit, in one transaction.

Alone, a delivery is committed at once; under load, one fsync serves many. Owned by the API process, called by the door
through `accept`; everybody else writes in a transaction of their own.
"""

import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from service.errors import Temporary
from service.failpoints import failpoint
from service.ledger import Arrival
from service.records import Accepted
from service.store.database import Database
from service.store.events import accept

BATCH = 128
PATIENCE = 8.0  #: seconds that a delivery waits for its commit before the sender is told to come again

_Item = tuple[Arrival, "Future[Accepted]"]


class Writer:
    """The thread and its queue."""

    def __init__(self, database: Database, *, at_most: int) -> None:
        self._database = database
        self._settled = False  #: whether what those before us left in the log is on the disk: repeats are told so
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=at_most)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def accept(self, arrival: Arrival) -> Accepted:
        """Return once it is on stable storage; Temporary when that cannot be said (the repeat is recognised)."""
        future: Future[Accepted] = Future()
        try:
            self._queue.put_nowait((arrival, future))
        except queue.Full:
            raise Temporary("too many deliveries are waiting for the store", delay=2.0) from None
        try:
            return future.result(timeout=PATIENCE)
        except FutureTimeout:
            raise Temporary("the store takes too long", delay=2.0) from None

    def close(self) -> None:
        """Write what is queued and end."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, more = [first], True
            while more and len(batch) < BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    more = False
                else:
                    batch.append(item)
            self._commit(batch)
            if not more:
                return

    def _commit(self, batch: list[_Item]) -> None:
        """All in one transaction; if that fails, one by one, so that a poisonous one cannot fail its neighbours."""
        try:
            if not self._settled:
                self._database.doubt.settle()
                self._settled = True
            with self._database.write(alone="accept") as connection:
                results = [accept(connection, arrival) for arrival, _ in batch]
                failpoint("writer.before_commit")
        except Exception as error:  # noqa: BLE001  # whatever it is, each waiting sender must hear of it
            if len(batch) > 1 and not isinstance(error, Temporary):
                for item in batch:
                    self._commit([item])
                return
            for _, future in batch:
                future.set_exception(error)
            return
        failpoint("writer.after_commit")
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
