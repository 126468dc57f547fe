"""What the rules would make of an event, with nothing stored and nothing started.

Called by `kfp-triggers rules explain` and `fire --dry-run`. Asks the same pure functions as a real decision.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.flow.look import look_up
from service.flow.resolve import Resolved, resolve
from service.ports import App
from triggers.errors import TriggerError
from triggers.event import Delivery, Event, Verdict, key_of
from triggers.rules.decision import Facts
from triggers.rules.explain import Planned, explain, sample_facts
from triggers.rules.gate import History
from triggers.rules.load import InputsOf
from triggers.rules.model import Candidate, Rule, RuleSet
from triggers.sourcefile import Source
from triggers.sources import SOURCES

# A body in a file has lost its headers; these are the ones that say which kind of push it is.
HEADERS = {"content-type": "application/json", "x-github-event": "push", "x-gitlab-event": "Push Hook"}


def candidates(body: bytes, sources: Mapping[str, Source], source: str | None) -> Sequence[Candidate]:
    """The events in a file: one as we print it, or what a source reads in a sender's body; or ValueError."""
    if source is None:
        return [_of_document(body)]
    if source not in sources:
        raise ValueError(f"there is no source `{source}`; there is {', '.join(sorted(sources)) or 'none'}")
    configured = sources[source]
    kind = SOURCES[configured.type]
    delivery = Delivery(source=source, headers=HEADERS, body=body, received_at=datetime.now(UTC))
    try:
        reading = kind.read(configured.config, delivery)
    except TriggerError as error:
        raise ValueError(error.detail) from error
    taken = [item for item in reading.events if item.verdict is Verdict.ACCEPTED]
    if not taken:
        reasons = "; ".join(
            f"{item.type} {item.subject}: {item.verdict}, {item.detail or item.reason}" for item in reading.events
        )
        raise ValueError(f"no event in it that rules may match: {reasons or 'it is empty'}")
    return [Candidate(event=item, event_id=f"EXPLAINED{number}", source=source) for number, item in enumerate(taken)]


def event_of(document: Any) -> Event:
    """An event from the fields that `events show --json` prints; ValueError names what is missing."""
    if not isinstance(document, dict):
        raise ValueError("an event is a JSON object with source, type, subject, time and data")
    kind, data, subject = document.get("type"), document.get("data"), document.get("subject", "")
    if not isinstance(kind, str) or not isinstance(data, dict) or not isinstance(subject, str):
        raise ValueError("an event needs `type` (text), `data` (an object) and `subject` (text)")
    try:
        time = datetime.fromisoformat(str(document.get("time") or datetime.now(UTC).isoformat()))
    except ValueError as error:
        raise ValueError("`time` must look like 2026-11-21T07:00:00Z") from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    subject = subject or str(data.get("object", ""))
    return Event(type=kind, subject=subject, time=time, data=data, identity=key_of("document", json.dumps(document)))


def _of_document(body: bytes) -> Candidate:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    event = event_of(document)
    source = document.get("source")
    if not isinstance(source, str):
        raise ValueError("an event needs `source`, the name of a source in sources.yaml")
    return Candidate(event=event, event_id=str(document.get("id") or "EXPLAINED"), source=source)


def explain_offline(rules: RuleSet, candidate: Candidate, inputs_of: InputsOf) -> list[dict[str, Any]]:
    """With samples for what would be looked up."""

    def facts(rule: Rule, planned: Planned) -> Facts:
        return sample_facts(rule, planned, inputs_of(rule.run.backend, rule.run.pipeline), datetime.now(UTC))

    return explain(rules, candidate, facts)


def explain_live(rules: RuleSet, candidate: Candidate, app: App) -> list[dict[str, Any]]:
    """With the world's answers; limits are judged as if nothing had run before."""

    def facts(rule: Rule, planned: Planned) -> Facts:
        resolved = resolve(app, app.rules.now().sources, rule, candidate)
        inputs = resolved.pipeline.inputs if isinstance(resolved, Resolved) else resolved
        found = look_up(app, planned)
        return Facts(
            lookups=found, history=History(), inputs=inputs, report_uri=f"{app.reports}/…", now=app.clock.now()
        )

    return explain(rules, candidate, facts)
