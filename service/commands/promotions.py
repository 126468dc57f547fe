"""`kfp-triggers models promote|rollback|approve|reject`: a person moves an alias, or answers a run that asks.

All by `service.flow.promote`: compare-and-set, with an entry in the log. Commands of `service.commands.models`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.fire import person
from service.commands.show import BAD, UNREACHABLE, AsJson, document, fail, opened, say

if TYPE_CHECKING:
    from service.ports import App
    from service.records import Promotion

Alias = Annotated[str, typer.Option("--alias", help="The alias to move.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for whoever reads the log.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `models list` shows it.")]
CHAMPION = "champion"


def promote(
    name: str,
    version: Annotated[int, typer.Argument(min=1)],
    alias: Alias = CHAMPION,
    expect: Annotated[
        int | None, typer.Option(min=0, help="Only if the alias is still at this version; 0: nowhere.")
    ] = None,
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make a version the champion. Exit 1 when somebody else was faster."""
    from triggers.reason import Reason

    with opened(rings=True) as world:
        there = world.registry.aliases(name).get(alias, 0)
        if there == version:
            fail(f"{name}@{alias} is {version} already", BAD)
        before = there if expect is None else expect
        item = _asked(world, (name, alias, before, version), "promote", Reason.BY_PERSON, reason)
        _make(world, item, as_json=as_json)


def rollback(
    name: str,
    to: Annotated[int | None, typer.Option(min=1, help="This version; else the one that was champion before.")] = None,
    alias: Alias = CHAMPION,
    reason: Why = "",
    as_json: AsJson = False,
) -> None:
    """Go back to the version that was champion before, by the log of promotions."""
    from service.flow.promote import champion_before
    from triggers.reason import Reason

    with opened(rings=True) as world:
        there = world.registry.aliases(name).get(alias, 0)
        before = to or champion_before(world, name, alias, there)
        if not before:
            what = f"no version that {there} took {name}@{alias} from" if there else f"that {name} has no {alias}"
            fail(f"nothing to roll back to: the log knows {what}; name one with --to", BAD)
        if before == there:
            fail(f"{name}@{alias} is {there} already", BAD)
        item = _asked(world, (name, alias, there, before), "rollback", Reason.ROLLED_BACK, reason)
        _make(world, item, as_json=as_json)


def approve(promotion_id: Id, reason: Why = "", as_json: AsJson = False) -> None:
    """Make a move that waits for a person, if the champion is still the one that the gate compared with."""
    from service.flow.promote import approve as approved

    with opened(rings=True) as world:
        item = _waits(world, promotion_id)
        world.registry.aliases(item.model)  # where it is away, the question stays open
        with _begun():
            ended = approved(world, promotion_id, person(), "; ".join(filter(None, (item.detail, reason))))
        if ended is None:
            fail(f"not now: another move of {item.model}@{item.alias} is under way, or somebody answered it", BAD)
        _end(ended, as_json=as_json)


def reject(promotion_id: Id, reason: Why = "", as_json: AsJson = False) -> None:
    """Say no to a move that waits for a person."""
    from service.flow.promote import reject as rejected

    with opened() as world:
        item = _waits(world, promotion_id)
        ended = rejected(world, item, person(), "; ".join(filter(None, (item.detail, reason))))
    if ended is None:
        fail(f"somebody else answered {promotion_id} at the same moment; see `kfp-triggers models show`", BAD)
    if as_json:
        document(shown(ended))
    else:
        say(f"rejected: {item.model}@{item.alias} stays where it is")


@contextmanager
def _begun() -> "Iterator[None]":
    """A move that was begun is not lost with the registry's answer: whoever waits is told so."""
    from service.errors import Temporary

    try:
        yield
    except Temporary as error:
        later = "what was begun is shown by `kfp-triggers models show`, and ended by the service"
        fail(f"{error.detail}; {later}", UNREACHABLE)


def _asked(world: "App", move: tuple[str, str, int, int], action: str, reason: Any, why: str) -> "Promotion":
    from ulid import ULID

    from service.records import Promotion, PromotionState

    model, alias, before, after = move
    return Promotion(
        id=str(ULID()),
        model=model,
        alias=alias,
        from_version=before,
        to_version=after,
        action=action,
        state=PromotionState.MOVING,
        reason=reason,
        detail=why,
        by=person(),
        created_at=world.clock.now(),
    )


def _make(world: "App", item: "Promotion", *, as_json: bool) -> None:
    from service.flow.promote import promote as made

    with _begun():
        ended = made(world, item) or item
    _end(ended, as_json=as_json)


def _end(ended: "Promotion", *, as_json: bool) -> None:
    """Say how it ended; exit 1 unless the alias is there now."""
    from service.records import PromotionState

    done = ended.state is PromotionState.DONE
    if as_json:
        document(shown(ended))
    elif done:
        say(f"{ended.model}@{ended.alias} {arrow(ended)} (promotion {ended.id})")
    else:
        fail(f"not moved: {ended.detail} (promotion {ended.id}, {ended.state})", BAD)
    if not done:
        raise typer.Exit(BAD)


def _waits(world: "App", promotion_id: str) -> "Promotion":
    from service.records import PromotionState

    found = world.ledger.promotions.get(promotion_id)
    if found is None:
        fail(f"there is no promotion {promotion_id}; see `kfp-triggers models list`", BAD)
    if found.state is not PromotionState.ASKED:
        fail(f"promotion {promotion_id} waits for nobody: it is {found.state}", BAD)
    return found


def shown(item: "Promotion") -> dict[str, Any]:
    """A promotion as one JSON document."""
    from service.records import document as made

    return made(item)


def arrow(item: "Promotion") -> str:
    """From where to where."""
    return f"{item.from_version or 'none'} → {item.to_version}"
