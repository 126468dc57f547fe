"""Dead letters to test with: a delivery that its source does not understand, a run that its backend refuses."""

from collections.abc import Callable

from world import TOKEN, World, notification

from service.errors import Permanent
from service.flow.receive import receive
from service.records import Query
from triggers.event import Delivery

HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


def send(world: World, body: bytes) -> str:
    """One delivery; the id of its first event."""
    delivery = Delivery(source="uploads", headers=HEADERS, body=body, received_at=world.clock.now())
    return receive(world.app, delivery).event_ids[0]


def misunderstood(world: World, key: str = "incoming/a.csv", **changes: object) -> str:
    """A notification that a source of today does not understand, and a mended one would."""
    return send(world, notification(key, **changes).replace(b'"Records"', b'"Entries"'))


def dead_run(world: World, drop: Callable[..., str], **changes: object) -> str:
    """A run that its backend refuses for good; its key."""
    world.backend.before_create = Permanent("no such service account")
    drop(**changes)
    world.answer()
    (run,) = world.store.runs.list(Query(state="dead"))
    return run.run_key
