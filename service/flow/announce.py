"""A move of an alias that was made is told to the rules, through every source of the type `mlflow` that has the model.

By the same door as every event. Told twice, as after a crash, it is one event. Called by `service.flow.promote`.
"""

import json
from datetime import datetime

from service.flow.moves import event_of
from service.flow.receive import store
from service.ledger import Arrival
from service.ports import App
from service.records import Promotion, Query
from triggers.event import Delivery, Event, Reading
from triggers.sources.mlflow import Config

TOLD = 500  #: the latest events of a source among which a move that somebody else made is looked for


def announce(app: App, item: Promotion, *, ours: bool) -> None:
    """Store the event; not where the registry has told of the move already, when it was made by somebody else."""
    now = app.clock.now()
    told = event_of(item, now)
    body = json.dumps({"promotion": item.id, "data": dict(told.data)}).encode()
    for source in app.rules.now().sources.values():
        if not isinstance(source.config, Config) or item.model not in source.config.models:
            continue
        if not ours and _was_told(app, source.name, told, _since(app, item)):
            continue
        delivery = Delivery(source=source.name, headers={}, body=body, received_at=now)
        reading = Reading(transport_key=told.identity, events=(told,))
        store(app, Arrival(delivery=delivery, headers={}, reading=reading))


def _since(app: App, item: Promotion) -> datetime:
    """A run's pipeline crowns a model's first version itself, before its verdict comes to us."""
    run = app.ledger.runs.get(item.run_key) if item.run_key else None
    return run.created_at if run else item.created_at


def _was_told(app: App, source: str, told: Event, since: datetime) -> bool:
    for one in app.ledger.events.list(Query(source=source, since=since, limit=TOLD)):
        same = (one.event.type, one.event.subject) == (told.type, told.subject)
        if same and one.event.data.get("version") == told.data["version"]:
            return True
    return False
