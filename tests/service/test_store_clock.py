"""The time that all processes of a store go by. What becomes of their runs is F25's to test."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from service.ledger import Claim
from service.settings import StoreSettings
from service.store import Store, migrate
from service.store import clock as module
from service.store.clock import SLEW, StoreClock

SECOND = timedelta(seconds=1)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    one = Store(StoreSettings(url=store_url))
    migrate.upgrade(one.database)
    yield one
    one.close()


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock is off by the seconds in it."""
    by, steady = [0.0], time.clock_gettime(time.CLOCK_BOOTTIME) - time.time()
    monkeypatch.setattr(module.time, "time", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - steady + by[0])
    return by


def work(store: Store, clock: StoreClock) -> None:
    """A process has a duty."""
    now = clock.now()
    assert store.leases.take("sweep", Claim(holder="one", now=now, until=now + 30 * SECOND))


@pytest.mark.parametrize("off", [172_800.0, -3600.0])
def test_who_starts_while_nobody_is_at_work_goes_by_a_wall_clock_that_is_ahead(
    store: Store, shifted: list[float], off: float
) -> None:
    before = StoreClock(store.database)
    if store.database.ahead(before.now()) is not None:
        pytest.skip("the server's clock is followed, and no wall clock")
    shifted[0] = off
    after = StoreClock(store.database)
    assert abs((after.now() - before.now()).total_seconds() - max(0.0, off)) < 1


@pytest.mark.parametrize("off", [172_800.0, -3600.0])
def test_a_wall_clock_that_is_set_changes_nothing_for_who_runs_and_who_comes(
    store: Store, shifted: list[float], off: float
) -> None:
    before = StoreClock(store.database)
    work(store, before)
    shifted[0] = off
    after = StoreClock(store.database)
    assert abs(after.now() - before.now()) < SECOND
    before.look()
    assert abs(after.now() - before.now()) < SECOND


def test_it_is_followed_by_a_tenth_of_the_time_that_passes(store: Store, shifted: list[float]) -> None:
    one, other = StoreClock(store.database), StoreClock(store.database)
    if store.database.ahead(one.now()) is not None:
        pytest.skip("the server's clock is followed, and no wall clock")
    before, began = one.now(), time.monotonic()
    shifted[0] = 3600.0
    for _ in range(10):
        time.sleep(0.02)
        one.look()
        other.look()
    gained = (one.now() - before).total_seconds() - (time.monotonic() - began)
    assert 0 < gained < 3 * SLEW * (time.monotonic() - began)
    assert abs(one.now() - other.now()) < SECOND


def test_what_is_off_by_less_than_anybody_minds_stays(store: Store, shifted: list[float]) -> None:
    one = StoreClock(store.database)
    shifted[0] = module.NEAR / 2
    before, began = one.now(), time.monotonic()
    one.look()
    assert abs((one.now() - before).total_seconds() - (time.monotonic() - began)) < module.NEAR / 4
