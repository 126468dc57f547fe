"""`kfp-triggers dead`: what stopped for good, to be looked at, mended and tried again, or put away."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.backup import Name
from service.commands.show import BAD, USAGE, AsJson, document, fail, fields, opened, parse_since, say, table

if TYPE_CHECKING:
    from service.ports import App
    from service.records import DeadLetter

app = typer.Typer(
    help="What stopped for good: quarantined events, dead runs, decisions that the service fails on.",
    no_args_is_help=True,
)

Keys = Annotated[list[str] | None, typer.Argument(help="Ids of events or decisions, keys of runs.")]
Source = Annotated[str | None, typer.Option(help="Only of this source.")]
Rule = Annotated[str | None, typer.Option(help="Only of this rule.")]
Why = Annotated[str | None, typer.Option(help="Only with this reason, as `dead list` shows it.")]
Older = Annotated[str | None, typer.Option(help="Only what stopped so long ago: 30m, 6h, 2d.")]
All = Annotated[bool, typer.Option("--all", help="Whatever the filters leave; without a filter everything.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, filters only count.")]
Note = Annotated[str, typer.Option("--why", help="Kept with it as evidence.")]


@app.command("list")
def list_dead(
    source: Source = None,
    rule: Rule = None,
    reason: Why = None,
    older_than: Older = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Of each kind.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The oldest first."""
    from service.records import document as shown

    with opened() as world:
        found = world.ledger.dead.list(_query(source, rule, reason, older_than, limit))
    if as_json:
        document({"items": [shown(one) for one in found]})
        return
    rows = [(one.kind, one.key, one.at, one.source, one.rule, one.subject, one.reason, one.detail) for one in found]
    table(("kind", "key", "since", "source", "rule", "subject", "reason", "detail"), rows)


@app.command("show")
def show_dead(key: str, as_json: AsJson = False) -> None:
    """One of them, with what it was told by and what was done about it."""
    from service.records import document as shown

    with opened() as world:
        found = _found(world, key)
        item = world.ledger.events.get(found.event_id)
        delivery = world.ledger.events.delivery(item.delivery_id) if item else None
        done = world.ledger.dead.notes(found.kind, key)
        kept = world.ledger.dead.body(found.event_id)
    body = kept.body.decode("utf-8", "replace") if kept else ""
    told = shown(delivery) if delivery else {}
    if as_json:
        document(shown(found) | {"delivery": told, "body": body, "done": [shown(one) for one in done]})
        return
    fields(shown(found) | {"delivery": told})
    if done:
        print()
        table(("at", "done", "by", "why"), [(one.at, one.action, one.by, one.why) for one in done])
    say(f"\n{body[:4000]}" if body else "\nits body is no longer kept")


@app.command("retry")
def retry_dead(
    keys: Keys = None,
    source: Source = None,
    rule: Rule = None,
    reason: Why = None,
    older_than: Older = None,
    everything: All = False,
    yes: Yes = False,
    by: Name = "",
    why: Note = "",
    as_json: AsJson = False,
) -> None:
    """Read a quarantined event again by its source's settings of now; start a dead run anew."""
    from service.flow import dead

    with opened(rings=True) as world:
        chosen = _chosen(world, keys, (source, rule, reason, older_than), everything)
        if _only_counted(chosen, keys, yes, "retried", as_json):
            return
        _each(chosen, lambda one: dead.retry(world, one, _person(by), why), as_json)


@app.command("discard")
def discard_dead(
    keys: Keys = None,
    source: Source = None,
    rule: Rule = None,
    reason: Why = None,
    older_than: Older = None,
    everything: All = False,
    yes: Yes = False,
    by: Name = "",
    why: Note = "",
    as_json: AsJson = False,
) -> None:
    """Put it away: it ends as discarded, with who and why beside it. Nothing is deleted."""
    from service.flow import dead

    def away(one: "DeadLetter") -> str:
        dead.discard(world, one, _person(by), why)
        return "discarded"

    with opened() as world:
        chosen = _chosen(world, keys, (source, rule, reason, older_than), everything)
        if _only_counted(chosen, keys, yes, "discarded", as_json):
            return
        _each(chosen, away, as_json)


def _query(source: str | None, rule: str | None, reason: str | None, older_than: str | None, limit: int) -> Any:
    from service.commands.show import check_state
    from service.records import DeadQuery
    from triggers.reason import Reason

    check_state(reason, Reason)
    return DeadQuery(source=source, rule=rule, reason=reason, before=parse_since(older_than), limit=limit)


def _found(world: "App", key: str) -> "DeadLetter":
    found = world.ledger.dead.get(key)
    if found is None:
        fail(f"nothing dead is {key}; see `kfp-triggers dead list`", BAD)
    return found


def _chosen(
    world: "App", keys: Sequence[str] | None, filters: tuple[str | None, ...], everything: bool
) -> Sequence["DeadLetter"]:
    """By name or by filter, and not by both; at most 500 of each kind at once."""
    by_filter = everything or any(one is not None for one in filters)
    if bool(keys) == by_filter:
        fail("give keys, or filters (--source, --rule, --reason, --older-than), or --all", USAGE)
    if keys:
        return [_found(world, key) for key in keys]
    source, rule, reason, older_than = filters
    chosen: Sequence[DeadLetter] = world.ledger.dead.list(_query(source, rule, reason, older_than, 500))
    return chosen


def _only_counted(
    chosen: Sequence["DeadLetter"], keys: Sequence[str] | None, yes: bool, verb: str, as_json: bool
) -> bool:
    """Filters count first: what they would touch is said, and touched only with --yes."""
    if keys or yes:
        return False
    counts = Counter((str(one.kind), one.source, one.rule, one.reason) for one in chosen)
    rows = [(*what, count) for what, count in sorted(counts.items())]
    if as_json:
        names = ("kind", "source", "rule", "reason", "count")
        document({"would": verb, "count": len(chosen), "by": [dict(zip(names, row, strict=True)) for row in rows]})
        return True
    table(("kind", "source", "rule", "reason", "count"), rows)
    print(f"\n{len(chosen)} would be {verb}; say --yes to do it")
    return True


def _each(chosen: Sequence["DeadLetter"], do: Callable[["DeadLetter"], str], as_json: bool) -> None:
    """One by one: what goes wrong with one is no other's trouble. Exit status 1 when anything did."""
    from service.errors import Permanent

    said: list[dict[str, Any]] = []
    for one in chosen:
        try:
            what, good = do(one), True
        except Permanent as error:
            what, good = error.detail, False
        said.append({"kind": one.kind, "key": one.key, "done": good, "detail": what})
        if not as_json:
            say(f"{one.kind} {one.key}: {what}")
    if as_json:
        document({"items": said})
    elif not chosen:
        print("there is nothing")
    if not all(one["done"] for one in said):
        raise typer.Exit(BAD)


def _person(by: str) -> str:
    from service.commands.fire import person

    return by or person()
