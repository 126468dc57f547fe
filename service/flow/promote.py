"""An alias of a model is moved, by compare-and-set: everybody who moves one through the service comes by here.

The registry cannot compare. So whoever moves holds the alias in the store (`Promotions.add`, one row a time is
`moving`), reads where the alias is, sets it only if it is where it was when the move was decided, and reads it again.
Killed in between, the row stays `moving`, and the sweep goes on with it: the alias itself says how far it had come.
Called by `service.flow.verdict` for a run, by `kfp-triggers models` for a person.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ulid import ULID

from service import metrics
from service.errors import Permanent, Temporary
from service.failpoints import failpoint
from service.flow.announce import announce
from service.ledger import Claim
from service.log import bound, logger
from service.ports import App
from service.records import Edge, Promotion, PromotionState
from triggers.reason import Reason

SLOWEST = timedelta(seconds=60)  #: between two tries of a move

#: How a version is tied to a move of an alias, by how that ended.
_TIES = {
    PromotionState.REFUSED: "refused in",
    PromotionState.LOST: "came too late in",
    PromotionState.REJECTED: "rejected in",
    PromotionState.ASKED: "put to a person in",
}


def promote(app: App, item: Promotion) -> Promotion | None:
    """Write a promotion, and make its move at once if it is to be moving; None when it is known already.

    Raises Temporary when the registry does not answer: the sweep then makes the move as soon as it does.
    """
    taken = app.claim()
    moving = item.state is PromotionState.MOVING
    added = app.ledger.promotions.add(item, taken, [*_judged(item), *([] if moving else _ties(item))])
    if added is None:
        return None
    if added.state is PromotionState.MOVING:
        return _move(app, added, taken)
    if moving:
        app.ledger.lineage.add(_ties(added), taken.now)
    _tell(added)
    return added


def approve(app: App, promotion_id: str, by: str, detail: str) -> Promotion | None:
    """A person says yes: the move is made if the alias is still where the gate compared with it.

    None when nobody asks (any more), or another move of the alias is under way.
    """
    taken = app.claim()
    item = app.ledger.promotions.approve(promotion_id, by, detail, taken)
    return None if item is None else _move(app, item, taken)


def reject(app: App, item: Promotion, by: str, detail: str) -> Promotion | None:
    """A person says no; None when nobody asks any more."""
    said = replace(item, by=by)
    ended = _ended(app, said, PromotionState.REJECTED, Reason.REJECTED, detail)
    if not app.ledger.promotions.end(ended, _ties(ended), before=PromotionState.ASKED):
        return None
    _tell(ended)
    return ended


def champion_before(app: App, model: str, alias: str, version: int) -> int:
    """The version that this one took the alias from; 0 when the log knows of none.

    Going back twice goes back two steps: a rollback is no promotion that another one would undo.
    """
    made = app.ledger.promotions.done(model, alias)
    took = [one for one in made if one.to_version == version and one.action == "promote" and one.from_version]
    return took[0].from_version if took else 0


def finish(app: App, promotion_id: str) -> None:
    """Go on with a move whose maker is gone, or that was put off. Called by the sweep."""
    taken = app.claim()
    item = app.ledger.promotions.take(promotion_id, taken)
    if item is not None:
        _move(app, item, taken)


def _move(app: App, item: Promotion, taken: Claim) -> Promotion:
    with bound(promotion=item.id, model=item.model, alias=item.alias):
        try:
            ended = _compare_and_set(app, item, taken)
        except Temporary as error:
            logger.warning("move_postponed", detail=error.detail)
            # As long again as it has waited: at first the next sweep takes it.
            now = app.clock.now()
            app.ledger.promotions.put_off(item.id, taken.holder, now + min(now - item.created_at, SLOWEST))
            raise
        except Permanent as error:
            ended = _ended(app, item, PromotionState.REFUSED, Reason.REGISTRY_REFUSED, error.detail)
        if not app.ledger.promotions.end(ended, _ties(ended), before=PromotionState.MOVING, holder=taken.holder):
            logger.warning("claim_lost", step="promote")
            return app.ledger.promotions.get(item.id) or ended
        failpoint("promotion.ended")
        _tell(ended)
        return ended


def _compare_and_set(app: App, item: Promotion, taken: Claim) -> Promotion:
    there = _where(app, item)
    _notice(app, item, there)
    if there not in (item.from_version, item.to_version):
        return _lost(app, item, there)
    if there != item.to_version:
        if app.clock.now() - taken.now > (taken.until - taken.now) / 2:
            raise Temporary("the model registry answers too slowly to move an alias safely")
        failpoint("promotion.begun")
        app.registry.set_alias(item.model, item.alias, item.to_version)
        failpoint("promotion.moved")
        after = _where(app, item)
        if after != item.to_version:
            return _lost(app, item, after)
    announce(app, item, ours=there != item.to_version)
    failpoint("promotion.announced")
    return _ended(app, item, PromotionState.DONE, item.reason, item.detail)


def _where(app: App, item: Promotion) -> int:
    return app.registry.aliases(item.model).get(item.alias, 0)


def _lost(app: App, item: Promotion, there: int) -> Promotion:
    now = f"the {item.alias} is {there} now" if there else f"there is no {item.alias} now"
    before = f"with {item.from_version}" if item.from_version else "with none"
    decided = f"the comparison was {before}" if item.run_key else f"the move was asked for {before} there"
    return _ended(app, item, PromotionState.LOST, Reason.ALIAS_ELSEWHERE, f"{now}, {decided}")


def _notice(app: App, item: Promotion, there: int) -> None:
    """Somebody moved the alias in the registry itself: the log must say so, or a rollback would go astray."""
    made = app.ledger.promotions.done(item.model, item.alias)
    if not made or there in (0, made[0].to_version, item.to_version):
        return
    now = app.clock.now()
    outside = replace(
        item,
        id=str(ULID()),
        from_version=made[0].to_version,
        to_version=there,
        action="promote",
        state=PromotionState.DONE,
        reason=Reason.MOVED_OUTSIDE,
        detail="noticed when the alias was to be moved",
        by="",
        run_key="",
        figures={},
        created_at=now,
        ended_at=now,
    )
    if app.ledger.promotions.add(outside, app.claim(), _ties(outside)):
        _tell(outside)


def _ended(app: App, item: Promotion, state: PromotionState, reason: Reason, detail: str) -> Promotion:
    return replace(item, state=state, reason=reason, detail=detail, ended_at=app.clock.now())


def _tell(item: Promotion) -> None:
    metrics.promotions.labels(state=item.state).inc()
    logger.info("promotion", promotion=item.id, state=item.state, reason=item.reason, run_key=item.run_key)


def _judged(item: Promotion) -> Sequence[Edge]:
    if not item.run_key:
        return []
    node = f"promotion:{item.id}"
    return [Edge(source=f"run:{item.run_key}", relation="judged", target=node, run_key=item.run_key)]


def _ties(item: Promotion) -> Sequence[Edge]:
    """The versions that it was about lead to it, and it leads to the alias if it moved it."""
    node = f"promotion:{item.id}"
    who: dict[str, Any] = {"by": item.by, "reason": item.reason}
    again = "again " if item.action == "rollback" else ""
    relation = _TIES.get(item.state, f"became {item.alias} {again}in")
    candidate = f"models:/{item.model}/{item.to_version}"
    edges = [Edge(source=candidate, relation=relation, target=node, run_key=item.run_key, data=who)]
    if item.state is not PromotionState.DONE:
        return edges
    alias = Edge(source=node, relation="moved", target=f"models:/{item.model}@{item.alias}", run_key=item.run_key)
    before = f"models:/{item.model}/{item.from_version}"
    gave_way = Edge(source=before, relation="gave way in", target=node, run_key=item.run_key)
    return [*edges, alias, *([gave_way] if item.from_version else [])]
