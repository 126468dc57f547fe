"""A token bucket for each backend, shared by every process through the store.

Kept as one time (GCRA): the instant at which the bucket will be full again. A token moves it on by one interval; it
may lie at most a burst's worth of intervals ahead of now.
"""

from datetime import datetime

from sqlalchemy import Connection, select, update

from service.ledger import Rate
from service.store.database import insert, micros
from service.store.tables import bucket


def take(connection: Connection, name: str, rate: Rate, now: datetime) -> bool:
    """Take a token inside the caller's transaction, which keeps others from the bucket; False when there is none."""
    interval = int(1e6 / rate.per_second)
    kept = select(bucket.c.full_at).where(bucket.c.name == name).with_for_update()
    if (known := connection.scalar(kept)) is None:
        connection.execute(insert(connection, bucket).values(name=name, full_at=0).on_conflict_do_nothing())
        known = connection.scalar(kept) or 0
    # More than a burst ahead of now: the clock was set back, or another machine's is ahead. That costs a moment only.
    if known > micros(now) + interval * rate.burst:
        known = micros(now) + interval * (rate.burst - 1)
    full_at = max(known, micros(now)) + interval
    if full_at - micros(now) > interval * rate.burst:
        return False
    connection.execute(update(bucket).where(bucket.c.name == name).values(full_at=full_at))
    return True
