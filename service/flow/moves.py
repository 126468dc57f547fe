"""A promotion as the event `model.alias`, and the registry's own word of it as the same event.

MLflow's webhook tells of every move, also of those that we make and tell of ourselves. Both get the identity of the
promotion, so that a move is one event whichever comes first. Called by `service.flow.announce` and
`service.flow.receive`.
"""

from datetime import datetime

from service.ports import App
from service.records import Promotion
from triggers.event import Event, Verdict, key_of
from triggers.sources.mlflow import ALIAS, Move, alias_event


def event_of(item: Promotion, time: datetime) -> Event:
    """What rules are told of a move that was made."""
    move = Move(
        model=item.model,
        alias=item.alias,
        version=item.to_version,
        previous=item.from_version,
        by=item.by,
        reason=item.detail or item.reason.text,
        promotion=item.id,
        run_key=item.run_key,
    )
    return alias_event(move, key_of(ALIAS, "promotion", item.id), time)


def as_ours(app: App, told: Event) -> Event:
    """The registry's word of a move: as the event of our promotion if it is one of ours, else as it came."""
    if told.type != ALIAS or told.verdict is not Verdict.ACCEPTED or told.data["promotion"]:
        return told
    data = told.data
    found = app.ledger.promotions.told_of(data["model"], data["alias"], data["version"], told.time)
    return event_of(found, told.time) if found else told
