"""What time it is for all processes of one store, whatever becomes of a machine's wall clock.

Who holds a lease writes down until when, and another one reads it: both must go by one clock. On PostgreSQL it is the
server's. On SQLite, whose processes share a machine, it is the time since that machine's boot plus an offset that the
store keeps. A wall clock that is set changes nothing at once: it is followed by a tenth of the time that passes, so
that no lease and no settle time is over early. Only who starts while nobody is at work goes by a wall clock that is
ahead: a machine that was set right after its boot, or slept as a whole, would not get there for long. Where Linux's
boot clock is missing it is the wall clock. Made by `service.wiring`, looked at by `service.duties`.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select, update

from service.errors import Temporary
from service.log import logger
from service.store.database import EPOCH, Database, insert
from service.store.tables import lease

NAME = "clock"  #: of the row in `lease`: its holder is the boot, its `until` the offset in microseconds
BOOT = Path("/proc/sys/kernel/random/boot_id")
SLEW = 0.1  #: of the time that passes
NEAR = 0.5  #: seconds that it may be off
PAUSE = 60.0  #: seconds; of a longer time between two looks no more is counted


class StoreClock:
    """The port `Clock`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._boot = BOOT.read_text().strip() if BOOT.exists() else ""
        self._offset, self._looked, self._apart = _wall(), _steady(), False
        self.look()
        if self._boot and _wall() - self._offset > 10 * NEAR and self._nobody_is_at_work():
            self._offset = self._moved(self._offset, _wall())

    def now(self) -> datetime:
        """Aware, UTC."""
        return EPOCH + timedelta(seconds=_steady() + self._offset)

    def wall(self) -> datetime:
        """What this machine's clock says: for what a sender signed by its own."""
        return datetime.now(UTC)

    def look(self) -> None:
        """Follow the store's time. Temporary when it cannot be read."""
        began = _steady()
        ahead = self._database.ahead(self.now())
        took = _steady() - began
        if ahead is None:
            self._offset = self._kept(took=began - self._looked) if self._boot else _wall()
        elif abs(ahead) > took:  # more than the asking explains
            self._offset += ahead - took / 2
        self._looked = began

    def _kept(self, took: float) -> float:
        """SQLite's offset, moved towards the wall clock unless another process has moved it since our last look."""
        wall, kept = _wall(), self._read()
        if kept is None:
            return self._begun(wall)
        if kept != self._offset:  # our first look, or another process has moved it
            return kept
        apart = wall - kept
        if (abs(apart) > 10 * NEAR) is not self._apart:
            self._apart = not self._apart
            logger.warning("wall_clock_was_set" if self._apart else "wall_clock_is_followed", seconds=round(apart, 1))
        if abs(apart) <= NEAR:
            return kept
        step = SLEW * min(took, PAUSE)
        return self._moved(kept, kept + max(-step, min(step, apart)))

    def _read(self) -> float | None:
        """The offset of this boot, None before the first look of it."""
        with self._database.read() as connection:
            row = connection.execute(select(lease).where(lease.c.name == NAME)).one_or_none()
        return row.until / 1e6 if row is not None and row.holder == self._boot else None

    def _begun(self, wall: float) -> float:
        """The first look since the boot; of two at once the first one's counts. Kept later when the store is busy."""
        row = {"holder": self._boot, "until": round(wall * 1e6)}
        try:
            with self._database.write() as connection:
                kept = insert(connection, lease).values(name=NAME, **row)
                other = lease.c.holder != self._boot
                connection.execute(kept.on_conflict_do_update(index_elements=["name"], set_=row, where=other))
        except Temporary:
            return wall
        found = self._read()
        return wall if found is None else found

    def _nobody_is_at_work(self) -> bool:
        """No duty's lease is in force: whoever works holds one, or has just died."""
        others = select(lease.c.name).where(lease.c.name != NAME, lease.c.until > round(self.now().timestamp() * 1e6))
        with self._database.read() as connection:
            return self._database.ahead(self.now()) is None and connection.execute(others.limit(1)).first() is None

    def _moved(self, before: float, after: float) -> float:
        """The new offset; the old one where another process was first, or the store is busy."""
        ours = update(lease).where(lease.c.name == NAME, lease.c.until == round(before * 1e6))
        try:
            with self._database.write() as connection:
                changed = connection.execute(ours.values(until=round(after * 1e6))).rowcount
        except Temporary:
            return before
        return round(after * 1e6) / 1e6 if changed else before


def _steady() -> float:
    """Seconds that no one sets, the same in all processes of a machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _wall() -> float:
    return time.time() - _steady()
