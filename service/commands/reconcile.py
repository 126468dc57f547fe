"""`kfp-triggers reconcile`: a look by hand for what no notification told of. Also takes in a bucket's history."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.show import BAD, USAGE, AsJson, document, fail, opened, parse_since, say, told

if TYPE_CHECKING:
    from service.flow.reconcile import Scope
    from service.ports import App
    from triggers.event import Event
    from triggers.sourcefile import Source

_TELL = 10_000  #: objects between two words about how far it is
_LONGEST = 1_000  #: items in a JSON document


@dataclass(frozen=True)
class _Wanted:
    """What the person asked for; None: all, or as it is set."""

    since: datetime | None
    source: str | None
    bucket: str | None
    prefix: str | None


def reconcile(
    since: Annotated[str | None, typer.Option(help="A time, or how long ago: 6h, 7d; else where scans are.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    bucket: Annotated[str | None, typer.Option(help="Only in this bucket.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only of keys that begin so; else the source's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look through buckets for objects that nobody told of, and take them in as events.

    With --since also what is older than the first scan. What is known is left alone, however often this is done.
    """
    counted = {"seen": 0, "young": 0, "found": 0}
    items: list[dict[str, Any]] = []
    with told(), opened(rings=True) as world:
        for scope in _scopes(world, _Wanted(parse_since(since), source, bucket, prefix)):
            for item in _walk(world, scope, counted, dry_run=dry_run):
                items += [item] if len(items) < _LONGEST else []
                if not as_json:
                    say(f"{item['event']}  {item['object']}  {', '.join(item['rules']) or 'no rule wants it'}".lstrip())
    if as_json:
        document(counted | {"dry_run": dry_run, "items": items})
        return
    what = "would be taken in" if dry_run else "taken in"
    young = f"; {counted['young']} are so young that their notification may yet come" if counted["young"] else ""
    print(f"{counted['seen']} objects seen, {counted['found']} that nobody told of {what}{young}")


def _scopes(world: "App", wanted: _Wanted) -> "list[Scope]":
    """What to look through; a wrong name is said before anything is taken in."""
    from service.flow.reconcile import Scope, going_on, scanned, until

    rows = {(row.source, row.bucket): row for row in world.ledger.scans.list()}
    listed = [(source, config, bucket) for source, config in scanned(world) for bucket in config.buckets]
    asked = [
        one
        for one in listed
        if wanted.source in {None, one[0].name} and wanted.bucket in {None, one[2]} and one[2] != world.own_bucket
    ]
    if not asked:
        there = ", ".join(f"{source.name} {bucket}" for source, _, bucket in listed) or "none"
        fail(f"no source of type minio has such a bucket; there is {there}", USAGE)
    scopes = []
    for source, config, bucket in asked:
        row = rows.get((source.name, bucket))
        since = wanted.since or (going_on(world, row) if row else None)
        if since is None:
            fail(f"bucket {bucket} of {source.name} was never looked through: say since when, --since 7d", BAD)
        prefix = wanted.prefix if wanted.prefix is not None else config.scan.prefix if config.scan else ""
        scopes.append(Scope(source=source, bucket=bucket, prefix=prefix, since=since, until=until(world)))
    return scopes


def _walk(world: "App", scope: "Scope", counted: dict[str, int], *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Each object that is new, as it is taken in."""
    from service.flow.reconcile import batches, described, pages, take_in

    for page in pages(world, scope):
        before = counted["seen"] // _TELL
        counted["seen"] += page.seen
        counted["young"] += page.young
        for batch in batches(page.new):
            events = described(world, batch)
            ids = ["" for _ in events]
            if events and not dry_run:
                accepted = take_in(world, scope.source, events)
                ids = [one if one in accepted.new_event_ids else "known" for one in accepted.event_ids]
            for event_id, event in zip(ids, events, strict=True):
                if event_id != "known":
                    counted["found"] += 1
                    yield {"event": event_id, "object": event.subject, "rules": _rules(world, scope.source, event)}
        if counted["seen"] // _TELL > before:
            say(f"{counted['seen']} objects seen, {counted['found']} new", to=sys.stderr)


def _rules(world: "App", source: "Source", event: "Event") -> list[str]:
    """The rules in force that want it; what they decide, they decide later."""
    from triggers.rules.match import Mismatch, match
    from triggers.rules.model import Candidate

    candidate = Candidate(event=event, event_id="", source=source.name)
    rules = world.rules.now().rules.rules.values()
    return [rule.name for rule in rules if not isinstance(match(rule, candidate), Mismatch)]
