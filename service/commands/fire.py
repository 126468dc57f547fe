"""`kfp-triggers fire RULE`: a person stands in for the sender. Also the way to try a rule."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.show import BAD, UNREACHABLE, USAGE, AsJson, document, fail, fields, opened, say, told

if TYPE_CHECKING:
    from service.ports import App
    from triggers.event import Event
    from triggers.rules.model import Rule

QUIET = 20.0  #: seconds without a decision after which a waiting person is told why that may be


def fire(
    rule: str,
    object_uri: Annotated[str | None, typer.Option("--object", help="As if this object had just landed.")] = None,
    event: Annotated[Path | None, typer.Option(help="An event as `events show --json` prints it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run ends; exit 1 unless it succeeds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make one rule act on an event of your own; filters are passed over, requirements and limits hold."""
    with told(), opened(rings=True) as world:
        rules = world.rules.now().rules.rules
        if rule not in rules:
            problems = "".join(f"\n{problem}" for problem in world.rules.now().problems)
            fail(f"there is no rule {rule}; there is {', '.join(rules) or 'none'}{problems}", BAD)
        made = _event(world, rules[rule], object_uri, event)
        if dry_run:
            _explain(world, rules[rule], made, as_json=as_json)
            return
        event_id = _store(world, rules[rule], made)
        if not as_json:
            print(f"event {event_id}", flush=True)
        state = _follow(world, event_id, quiet=as_json) if wait else ""
        if as_json:
            document({"event": event_id, "runs": [run.run_key for run in world.ledger.runs.of_event(event_id)]})
        if wait and state != "succeeded":
            raise typer.Exit(BAD)


def _event(world: "App", rule: "Rule", object_uri: str | None, file: Path | None) -> "Event":
    """The event to act on: from a file, from an object as it is now, or a bare one for a rule on `manual.fired`."""
    from service.errors import Refused
    from service.flow.explain import event_of
    from triggers.errors import NotUnderstood
    from triggers.payload import json_object

    kind = rule.trigger.event
    if file is not None:
        try:
            made = event_of(json_object(file.read_bytes()))
        except OSError as error:
            raise Refused(f"cannot read {file}: {error.strerror}") from error
        except NotUnderstood as error:
            raise Refused(f"{file}: {error.detail}") from error
        except ValueError as error:
            raise Refused(f"{file}: {error}") from error
        if made.type != kind:
            raise Refused(f"{file} holds {made.type}, the rule waits for {kind}")
        return made
    if object_uri is not None:
        if kind != "object.created":
            raise Refused(f"--object goes with a rule on object.created; {rule.name} waits for {kind}")
        from service.flow.reconcile import event_of_object

        return event_of_object(world.objects.stat(object_uri))
    if kind != "manual.fired":
        needs = "--object URI or --event FILE" if kind == "object.created" else "--event FILE"
        fail(f"{rule.name} waits for {kind}: give it one with {needs}", USAGE)
    return event_of({"type": kind, "subject": rule.name, "data": {"scheduled_for": "", "by": person()}})


def _store(world: "App", rule: "Rule", made: "Event") -> str:
    """By the same door as every event; fired twice is two events, as a person asked twice."""
    from dataclasses import replace

    from ulid import ULID

    from service.flow.receive import store
    from service.ledger import Arrival
    from triggers.event import Delivery, Reading, key_of

    key = key_of("fire", ULID())
    data = {name: value for name, value in made.data.items() if name != "repeat"}  # of the service's own telling
    item = replace(made, data=data, identity=key, stream="", position="")
    body = json.dumps({"fired": rule.name, "by": person(), "data": dict(item.data)}, default=str).encode()
    delivery = Delivery(source=rule.trigger.source, headers={}, body=body, received_at=world.clock.now())
    reading = Reading(transport_key=key, events=(item,))
    accepted = store(world, Arrival(delivery=delivery, headers={}, reading=reading, only_rule=rule.name))
    return accepted.event_ids[0]


def _explain(world: "App", rule: "Rule", made: "Event", *, as_json: bool) -> None:
    from dataclasses import replace

    from service.flow.explain import explain_live
    from triggers.rules.model import Candidate, RuleSet

    # Without its filters, as the real firing passes over them.
    bare = replace(rule, trigger=replace(rule.trigger, filters=(), labels={}))
    candidate = Candidate(event=made, event_id="DRYRUN", source=rule.trigger.source)
    (entry,) = explain_live(RuleSet(rules={rule.name: bare}, hash=""), candidate, world)
    if as_json:
        document(entry)
    else:
        fields({name: value for name, value in entry.items() if name != "matched"})


def _follow(world: "App", event_id: str, *, quiet: bool) -> str:
    """Print each change until the run ends; the state it ended in, or the decision's outcome when there is no run."""
    from service.lifecycle import TERMINAL

    started, said = time.monotonic(), ""
    while True:
        runs = world.ledger.runs.of_event(event_id)
        decisions = world.ledger.decisions.of_event(event_id)
        line = _line(runs, decisions)
        if line != said and not quiet:
            say(line)
        said = line
        if runs and runs[0].state in TERMINAL:
            return str(runs[0].state)
        if decisions and not runs and decisions[0].outcome == "skip":
            return "skip"
        if not decisions and time.monotonic() - started > QUIET:
            fail(
                "nobody has decided it yet: does `kfp-triggers up` (or an api) run on this home? It is not lost.",
                UNREACHABLE,
            )
        time.sleep(0.3)


def _line(runs: Any, decisions: Any) -> str:
    if runs:
        return f"run {runs[0].run_key} {runs[0].state} {runs[0].error}".rstrip()
    if decisions:
        return f"{decisions[0].outcome}: {decisions[0].reason}, {decisions[0].detail}"
    return "stored"


def person() -> str:
    """Who gives the command, for the record."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number and no name
        return f"uid {os.getuid()}"
