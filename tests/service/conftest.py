"""The world as a fixture, and the commonest thing to do in it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import postgres
import pytest
from world import TOKEN, World, made, notification

from service.flow.receive import receive
from service.settings import StoreSettings
from service.store import Store
from triggers.event import Delivery


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> Iterator[World]:
    with made(tmp_path, store_url) as one:
        yield one


@pytest.fixture
def drop(world: World) -> Callable[..., str]:
    """A new object is told of; the event's id."""

    def dropped(key: str = "incoming/a.csv", **changes: object) -> str:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        body = notification(key, **changes)
        delivery = Delivery(source="uploads", headers=headers, body=body, received_at=world.clock.now())
        return receive(world.app, delivery).event_ids[0]

    return dropped


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    with postgres_server.database("migrated") as one:
        yield one


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[Store]]:
    """As many processes on one store, each with connections of its own."""
    with ExitStack() as opened:
        found = [Store(StoreSettings(url=postgres_url)) for _ in range(6)]
        for one in found:
            opened.callback(one.close)
        yield found
