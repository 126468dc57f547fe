"""`kfp-triggers models`: which version is the champion, who made it so, and making another one so."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands import promotions
from service.commands.promotions import arrow, shown
from service.commands.show import AsJson, document, opened, table

if TYPE_CHECKING:
    from service.ports import App, ModelVersion
    from service.records import Promotion

app = typer.Typer(help="Which version is the champion, who made it so, and why.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Every model with its aliases, what waits for a person, and moves that do not come to an end."""
    with opened() as world:
        found = world.registry.models()
        waiting, stuck = _waiting(world), _stuck(world)
    if as_json:
        moves = {"waiting": [shown(item) for item in waiting], "stuck": [shown(item) for item in stuck]}
        document({"items": [vars(one) for one in found], **moves})
        return
    table(("model", "aliases"), [(one.name, _aliases(one.aliases)) for one in found])
    if waiting:
        print("\nwaiting for `kfp-triggers models approve ID` or `reject ID`:")
        rows = [(item.id, f"{item.model}@{item.alias}", arrow(item), item.detail) for item in waiting]
        table(("id", "alias", "move", "why"), rows)
    if stuck:
        print("\nunder way for too long, see `move_postponed` in the service's log; no other move can begin:")
        since = [(item.id, f"{item.model}@{item.alias}", arrow(item), item.created_at) for item in stuck]
        table(("id", "alias", "move", "since"), since)


@app.command("show")
def show_model(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=200, help="So many versions, and so many moves.")] = 20,
    as_json: AsJson = False,
) -> None:
    """One model: its newest versions, and the log of its promotions."""
    from service.records import Query

    with opened() as world:
        aliases = world.registry.aliases(name)
        versions = [_version(one, aliases) for one in world.registry.versions(name, limit)]
        log = world.ledger.promotions.list(Query(limit=limit), name)
    if as_json:
        moves = [shown(item) for item in log]
        document({"name": name, "aliases": dict(aliases), "versions": versions, "promotions": moves})
        return
    table(("version", "aliases", "registered", "commit", "data", "figures", "run"), [_row(one) for one in versions])
    print()
    columns = ("id", "at", "move", "state", "by", "reason", "detail", "run")
    table(columns, [_moved(item) for item in log])


app.command()(promotions.promote)
app.command()(promotions.rollback)
app.command()(promotions.approve)
app.command()(promotions.reject)


def _waiting(world: "App") -> "Sequence[Promotion]":
    from service.records import PromotionState, Query

    return world.ledger.promotions.list(Query(state=PromotionState.ASKED, limit=500))


def _stuck(world: "App") -> "Sequence[Promotion]":
    from service.records import PromotionState, Query
    from service.store.promotions import SLOW

    begun = world.clock.now() - SLOW
    return world.ledger.promotions.list(Query(state=PromotionState.MOVING, until=begun, limit=500))


def _version(found: "ModelVersion", aliases: Mapping[str, int]) -> dict[str, Any]:
    tags = found.tags
    return {
        "version": found.version,
        "aliases": [alias for alias, version in aliases.items() if version == found.version],
        "created_at": found.created_at,
        "commit": tags.get("commit", ""),
        "repository": tags.get("repository", ""),
        "window": {"start": tags.get("data_window_start", ""), "end": tags.get("data_window_end", "")},
        "features": tags.get("feature_service", ""),
        "figures": dict(found.figures),
        "run_key": tags.get("run_key", ""),
    }


def _row(one: Mapping[str, Any]) -> tuple[Any, ...]:
    window = " … ".join(filter(None, (text[:16] for text in one["window"].values())))
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(one["figures"].items()))
    return (
        one["version"],
        " ".join(one["aliases"]),
        one["created_at"],
        one["commit"][:12],
        window,
        figures,
        one["run_key"],
    )


def _moved(item: "Promotion") -> tuple[Any, ...]:
    at = item.ended_at or item.created_at
    return (item.id, at, f"{item.alias} {arrow(item)}", item.state, item.by, item.reason, item.detail, item.run_key)


def _aliases(aliases: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} {version}" for alias, version in sorted(aliases.items()))
