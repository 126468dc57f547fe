"""The world as a fixture, and the commonest thing to do in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from world import TOKEN, World, made, notification

from service.flow.receive import receive
from triggers.event import Delivery


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made(tmp_path) as one:
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
