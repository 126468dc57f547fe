"""An alert that still fires is put to its rule again, where the rule says `repeat: {every: …}`.

The service asks by its own clock, and not when Alertmanager repeats itself: that may be oftener, seldomer or never
(its `repeat_interval` is the sender's business, and a notification can get lost). Each decision on such an alert is
due again after `every`; then an event is made that only this rule sees, with an identity of its own, and the decision
on that one carries on. While a decision waits, for a cooldown say, none is made: it is being asked already. The chain
ends when the alert is resolved or fires anew, when the tries are used up (a rule that repeats must have `tries`: they
bound what a lost `resolved` can do), and when the rule is gone.

Called by `service.flow.decide` with a decision that is due and was made.
"""

import json
from dataclasses import replace

from service.flow.receive import store
from service.ledger import Arrival, Claim
from service.ports import App
from service.records import DecisionRecord, Edge, EventRecord
from triggers.event import Delivery, Reading, key_of
from triggers.rules.match import Match, match
from triggers.rules.model import Candidate


def told_again(item: EventRecord) -> bool:
    """Whether it is such an event, and not one that a person fired."""
    return "repeat" in item.event.data


def repeat(app: App, item: EventRecord, decided: DecisionRecord, taken: Claim) -> None:
    """Tell the rule of the alert once more if it still fires. Killed anywhere, it is told of once: by its identity."""
    rule = app.rules.now().rules.rules.get(decided.rule)
    candidate = Candidate(event=item.event, event_id=item.id, source=item.source)
    wanted = rule is not None and rule.trigger.repeat is not None and isinstance(match(rule, candidate), Match)
    if wanted and app.ledger.events.fires(item):
        accepted = store(app, _again(app, item, decided))
        again = Edge(source=f"event:{item.id}", relation="fires on as", target=f"event:{accepted.event_ids[0]}")
        app.ledger.lineage.add([again], app.clock.now())
    app.ledger.decisions.repeated(decided.id, holder=taken.holder)


def _again(app: App, item: EventRecord, decided: DecisionRecord) -> Arrival:
    now, key = app.clock.now(), key_of("repeat", decided.id)
    data = dict(item.event.data) | {"repeat": int(item.event.data.get("repeat", 0)) + 1}
    told = replace(item.event, time=now, data=data, identity=key, stream="", position="")
    body = json.dumps({"repeats": item.id, "rule": decided.rule}).encode()
    delivery = Delivery(source=item.source, headers={}, body=body, received_at=now)
    return Arrival(
        delivery=delivery, headers={}, reading=Reading(transport_key=key, events=(told,)), only_rule=decided.rule
    )
