"""A training run's verdict on its candidate becomes a promotion: made, put to a person, or refused.

The verdict is what the run's code reported, and is not trusted: it is bounded, and a run can only speak of a version
that it registered itself. A run has one verdict on an alias, however often it is recorded. Called by
`service.flow.record`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ulid import ULID

from service.errors import Temporary
from service.flow.promote import promote
from service.lifecycle import State
from service.log import logger
from service.ports import App, ModelVersion
from service.records import Promotion, PromotionState, RunRecord
from triggers.payload import clean
from triggers.reason import Reason

Word = Annotated[str, Field(max_length=256)]
Number = Annotated[float, Field(allow_inf_nan=False)] | None
Version = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Shape(BaseModel):
    # What a newer pipeline says beside it is passed over.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Slice(_Shape):
    """The same figure on a part of the rows."""

    slice: Word
    rows: Annotated[int, Field(ge=0)] = 0
    candidate: Number = None
    champion: Number = None
    worse: bool = False


class Verdict(_Shape):
    """What `compare_models` reports as the fact `promotion`."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    candidate: Annotated[int, Field(ge=1, le=2**31 - 1)]
    champion: Version = 0  #: that it was compared with; 0: there was none
    verdict: Literal["promote", "refuse", "ask", "never", "first"]
    mode: Literal["auto", "approve", "never"] = "auto"
    metric: Word = ""
    margin: Number = None
    candidate_value: Number = None
    champion_value: Number = None
    rows: Annotated[int, Field(ge=0)] = 0
    slices: Annotated[list[Slice], Field(max_length=100)] = []
    reasons: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = []


def act(app: App, item: RunRecord, facts: Sequence[Mapping[str, Any]], versions: Sequence[ModelVersion]) -> None:
    """Write the promotions that an ended run's reports ask for, and make them."""
    if item.state is not State.SUCCEEDED:
        return
    for verdict in _verdicts(facts):
        if (verdict.model, verdict.candidate) not in {(one.name, one.version) for one in versions}:
            logger.warning("verdict_on_foreign_version", model=clean(verdict.model), version=verdict.candidate)
            continue
        try:
            promote(app, _promotion(verdict, item, app.clock.now()))
        except Temporary as error:
            if app.ledger.promotions.get(_id(verdict, item)) is None:  # the store: the run is recorded later
                raise
            logger.warning("promotion_later", detail=error.detail)


def _verdicts(facts: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    for told in facts:
        if "promotion" not in told:
            continue
        try:
            yield Verdict.model_validate(told["promotion"])
        except ValidationError as error:
            logger.warning("verdict_not_understood", fields=[one["loc"] for one in error.errors()][:5])


def _promotion(verdict: Verdict, item: RunRecord, now: datetime) -> Promotion:
    state, reason = _outcome(verdict)
    ends = state is PromotionState.REFUSED
    return Promotion(
        id=_id(verdict, item),
        model=verdict.model,
        alias=verdict.alias,
        from_version=verdict.champion,
        to_version=verdict.candidate,
        action="promote",
        state=state,
        reason=reason,
        detail="; ".join(clean(one) for one in verdict.reasons),
        by=f"rule {item.rule}",
        run_key=item.run_key,
        figures=verdict.model_dump(include=_FIGURES),
        created_at=now,
        ended_at=now if ends else None,
    )


_FIGURES = {"mode", "metric", "margin", "candidate_value", "champion_value", "rows", "slices"}


def _outcome(verdict: Verdict) -> tuple[PromotionState, Reason]:
    """The more careful of what the verdict and the mode say. With `auto` the pipeline crowned the first version."""
    if verdict.verdict == "first" and verdict.mode == "auto":
        return PromotionState.MOVING, Reason.FIRST_VERSION
    if verdict.verdict == "refuse":
        return PromotionState.REFUSED, Reason.GATE_REFUSED
    if "never" in (verdict.verdict, verdict.mode):
        return PromotionState.REFUSED, Reason.NEVER_PROMOTES
    if verdict.verdict == "ask" or verdict.mode == "approve":
        return PromotionState.ASKED, Reason.GATE_ASKS
    return PromotionState.MOVING, Reason.GATE_PASSED


def _id(verdict: Verdict, item: RunRecord) -> str:
    """A ULID that two processes which record the same run both come to."""
    ended_at = item.ended_at or item.created_at
    name = f"{item.run_key}\n{verdict.model}\n{verdict.alias}".encode()
    return str(ULID.from_bytes(ULID.from_datetime(ended_at).bytes[:6] + hashlib.sha256(name).digest()[:10]))
