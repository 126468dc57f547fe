"""`kfp-triggers events`: what arrived, and what became of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.show import BAD, AsJson, check_state, document, fail, fields, opened, parse_since, table

if TYPE_CHECKING:
    from service.ports import App
    from service.records import EventRecord

app = typer.Typer(help="What arrived, and what became of it.", no_args_is_help=True)


@app.command("list")
def list_events(
    since: Annotated[str | None, typer.Option(help="A time, or how long ago: 30m, 6h, 7d.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    state: Annotated[str | None, typer.Option(help="accepted, quarantined, ignored, unmatched or decided.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    as_json: AsJson = False,
) -> None:
    """The newest first."""
    from service.records import EventState, Query
    from service.records import document as shown

    check_state(state, EventState)
    query = Query(since=parse_since(since), source=source, state=state, limit=limit)
    with opened() as world:
        found = world.ledger.events.list(query)
    if as_json:
        document({"items": [shown(item) for item in found]})
        return
    rows = [
        (item.id, item.received_at, item.source, item.event.type, item.event.subject, item.state, item.reason)
        for item in found
    ]
    table(("event", "received", "source", "type", "subject", "state", "reason"), rows)


@app.command("show")
def show_event(event_id: str, as_json: AsJson = False) -> None:
    """One event with every decision on it."""
    from service.records import EventState
    from service.records import document as shown
    from triggers.reason import Reason

    with opened() as world:
        found = world.ledger.events.get(event_id)
        if found is None:
            fail(f"there is no event {event_id}; see `kfp-triggers events list`", BAD)
        decisions = world.ledger.decisions.of_event(event_id)
        told = world.ledger.events.delivery(found.delivery_id)
        why_not = _why_not(world, found) if found.state is EventState.UNMATCHED and not as_json else []
    if as_json:
        document(shown(found) | {"decisions": [shown(item) for item in decisions]})
        return
    said = shown(found) | {"found_by": told.headers.get("transport", "") if told else ""}
    said["reason"] = f"{found.reason}: {Reason(found.reason).text}" if found.reason else ""
    fields(said)
    rows = [
        (item.rule, item.outcome, item.reason, item.detail or Reason(item.reason).text, item.run_key)
        for item in decisions
    ]
    if rows:
        print()
        table(("rule", "decision", "reason", "why", "run"), rows)
    if why_not:
        print("\nwhat the rules of today say of it")
        table(("rule", "reason", "why"), why_not)
    if found.state is EventState.ACCEPTED:
        print("\nit waits to be decided: `kfp-triggers up`, or an api, on this home does it")


def _why_not(world: "App", item: "EventRecord") -> list[tuple[str, str, str]]:
    """Why each rule leaves it alone; a rule that was changed since may want it now."""
    from triggers.rules.match import Mismatch, match
    from triggers.rules.model import Candidate

    candidate = Candidate(event=item.event, event_id=item.id, source=item.source)
    found = [(rule.name, match(rule, candidate)) for rule in world.rules.now().rules.rules.values()]
    return [
        (name, one.reason, one.detail) if isinstance(one, Mismatch) else (name, "", "it matches now")
        for name, one in found
    ]
