"""`kfp-triggers lineage`, `verify`, `settings`: questions about the whole."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from service.commands.show import BAD, AsJson, document, fail, opened, say, settings, table, told

_PASSWORD = re.compile(r"(?<=://)[^/].*(?=@)|(?<=[?&]password=)[^&]*")

lineage_app = typer.Typer(help="What came from what.", no_args_is_help=True)


@lineage_app.command("show")
def show(uri: str, as_json: AsJson = False) -> None:
    """Everything that a URI came from, and everything that came of it."""
    from service.flow.origins import trace

    with opened() as world:
        found = trace(world.ledger.lineage, uri)
    if as_json:
        document(found)
    elif found["known"]:
        print_tree(uri, "came from", found["upstream"], up=True)
        print_tree(uri, "led to", found["downstream"], up=False)
    if not found["known"]:
        fail(f"nothing is recorded of {uri}", BAD)


def print_tree(root: str, title: str, edges: Sequence[Mapping[str, Any]], *, up: bool) -> None:
    """One direction as an indented tree; a thing that stands there already is not unfolded again."""
    if not edges:
        return
    near, far = ("target", "source") if up else ("source", "target")
    below: dict[str, list[Mapping[str, Any]]] = {}
    for edge in edges:
        below.setdefault(edge[near], []).append(edge)
    say(f"{root} {title}")
    seen: set[str] = {root}

    def branch(node: str, indent: str) -> None:
        children = below.get(node, [])
        for number, edge in enumerate(children, 1):
            last = number == len(children)
            again = edge[far] in seen and edge[far] in below
            facts = " ".join(f"{name}={value}" for name, value in edge["data"].items())
            note = f"  ({facts})" if facts else ""
            say(f"{indent}{'└─' if last else '├─'} {edge['relation']} {edge[far]}{note}{' …' if again else ''}")
            if not again:
                seen.add(edge[far])
                branch(edge[far], indent + ("   " if last else "│  "))

    branch(root, "")


def verify(as_json: AsJson = False) -> None:
    """Recompute the account from the rows; exit 1 if anything is lost, stuck, double or unrecorded."""
    from datetime import timedelta

    with told():
        pace = settings().pace
    with opened() as world:
        patience = timedelta(seconds=pace.lease + 2 * pace.sweep + pace.takeover)
        found = world.ledger.account.verify(world.clock.now(), patience=patience, settle=timedelta(seconds=pace.settle))
    bad = {name: found[name] for name in ("lost", "stuck", "twice", "unrecorded")}
    if as_json:
        document(found)
    else:
        for name in ("events", "decisions", "runs"):
            counts = ", ".join(f"{count} {word}" for word, count in found[name].items()) or "none"
            print(f"{name:<10} {counts}")
        table(("finding", "count", "which"), [(name, len(ids), " ".join(ids[:20])) for name, ids in bad.items()])
    if any(bad.values()):
        raise typer.Exit(BAD)


def show_settings(as_json: AsJson = False) -> None:
    """What is in force, secrets masked."""
    with told():
        found = settings().model_dump(mode="json")
    if as_json:
        document(_masked(found))
        return
    for name, value in _masked(found).items():
        if isinstance(value, dict):
            print(f"\n[{name}]")
            for field, inner in value.items():
                print(f"{field} = {inner!r}" if inner is not None else f"# {field} is not set")
        else:
            print(f"{name} = {value!r}")


def _masked(found: Any) -> Any:
    """Any URL may carry a password; SecretStr masks the rest by itself."""
    if isinstance(found, dict):
        return {name: _masked(value) for name, value in found.items()}
    return _PASSWORD.sub("***", found) if isinstance(found, str) else found
