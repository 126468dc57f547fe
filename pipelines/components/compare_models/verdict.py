"""What the gate says, and why: figures of both models → a verdict. Called by compare.py; no file and no model is here.

The words are a contract with the service, which acts on them (`docs/promotion.md`): `promote` and `refuse`; `ask` for
a person's word; `never` where the rule only wants to know; `first` where this version became the
champion, for there was none.
"""

import math
from dataclasses import dataclass
from typing import Any

from pipelines.components.compare_models.figures import Interval, Scored, interval, value
from pipelines.components.compare_models.rule import Rule
from pipelines.slices import SMALLEST


@dataclass(frozen=True)
class Part:
    """One slice of the hold-out: both figures on it, None where it is too small or has one class only."""

    name: str
    rows: int
    candidate: float | None
    champion: float | None
    worse: bool

    @property
    def judged(self) -> bool:
        return self.candidate is not None


@dataclass(frozen=True)
class Verdict:
    """The gate's word, the reasons for it as sentences, and the figures that they rest on."""

    word: str
    reasons: tuple[str, ...]
    rows: int
    candidate: float | None = None
    champion: float | None = None
    interval: Interval | None = None
    parts: tuple[Part, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """What KFP shows as metrics."""
        found = {"candidate": self.candidate, "champion": self.champion, "rows": float(self.rows)}
        if self.interval:
            found |= {"better_by_at_least": self.interval.low, "better_by_at_most": self.interval.high}
        return {name: number for name, number in found.items() if number is not None}

    def facts(self, model: str, versions: tuple[int, int], rule: Rule) -> dict[str, Any]:
        """The fact `promotion` of the step's report; `versions` are the candidate's and the champion's, 0 for none."""
        return {
            "model": model, "alias": "champion", "candidate": versions[0], "champion": versions[1],
            "verdict": self.word, "mode": rule.mode, "metric": rule.metric, "margin": rule.margin,
            "candidate_value": self.candidate, "champion_value": self.champion, "rows": self.rows,
            "slices": [
                {"slice": part.name[:256], "rows": part.rows, "candidate": part.candidate, "champion": part.champion,
                 "worse": part.worse}
                for part in self.parts
            ],
            "reasons": [reason[:500] for reason in self.reasons[:20]],
        }  # fmt: skip


def unopposed(rule: Rule, candidate: Scored, number: int, *, crowned: bool) -> Verdict:
    """There is no other champion. The first version became it when it was registered, unless the rule's mode, or
    somebody who took the alias away, was against it: then it is a person's to give."""
    word = "first" if crowned else "never" if rule.mode == "never" else "ask"
    said = f"version {number} is the champion" if crowned else f"the model has no champion; promotion is `{rule.mode}`"
    reason = f"{said}: there is no other to compare it with"
    return Verdict(word, (reason,), len(candidate.truth), defined(value(rule.figure, candidate)))


def undecided(rule: Rule, candidate: Scored, problem: str) -> Verdict:
    """The champion cannot be scored, or on too few rows, so there is nothing to compare: a person decides.

    The figure and the rows are the candidate's own on the whole hold-out.
    """
    word = "never" if rule.mode == "never" else "ask"
    reason = f"the champion cannot be compared with: {problem}"
    return Verdict(word, (reason,), len(candidate.truth), defined(value(rule.figure, candidate)))


def judge(rule: Rule, candidate: Scored, champion: Scored, parts: tuple[Part, ...]) -> Verdict:
    """Both scored the same rows. A refusal gives every reason, not only the first."""
    ours, theirs = value(rule.figure, candidate), value(rule.figure, champion)
    spread = interval(rule.figure, candidate, champion, rule.margin)
    against = _against(rule, ours, theirs, spread, parts)
    word = "never" if rule.mode == "never" else "refuse" if against else "promote" if rule.mode == "auto" else "ask"
    reasons = tuple(against) or (_said(rule, ours, theirs),)
    if rule.mode == "never":
        reasons = (f"promotion is `never`; it would {'be refused' if against else 'pass'}", *reasons)
    if word == "ask":
        reasons = ("it passed the gate, and promotion is `approve`", *reasons)
    return Verdict(word, reasons, len(candidate.truth), defined(ours), defined(theirs), spread, parts)


def judged_part(rule: Rule, name: str, candidate: Scored, champion: Scored) -> Part:
    """A slice; worse only by more than the rule's slice_margin."""
    rows = len(candidate.truth)
    if rows < SMALLEST:
        return Part(name, rows, None, None, False)
    ours, theirs = value(rule.figure, candidate), value(rule.figure, champion)
    if math.isnan(ours) or math.isnan(theirs):
        return Part(name, rows, None, None, False)
    worse = rule.figure.better_by(ours, theirs) < -rule.slice_margin
    return Part(name, rows, ours, theirs, worse)


def defined(number: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(number) else number


def _against(rule: Rule, ours: float, theirs: float, spread: Interval | None, parts: tuple[Part, ...]) -> list[str]:
    if math.isnan(ours) or math.isnan(theirs):
        return [f"{rule.metric} is undefined on this hold-out, which has rows of one class only"]
    found = []
    if not rule.figure.better_by(ours, theirs) >= rule.margin:
        found.append(f"{_said(rule, ours, theirs)}; it must be better by at least {rule.margin:g}")
    if rule.confidence and (spread is None or spread.share < rule.confidence):
        share = "not known" if spread is None else f"{spread.share:.1%} of the draws"
        found.append(f"that it is better by {rule.margin:g} is {share} sure; it must be {rule.confidence:.1%}")
    found += [
        f"{part.name} ({part.rows} rows): {_said(rule, part.candidate, part.champion)}; "
        f"it may get worse by {rule.slice_margin:g} at most"
        for part in parts
        if part.worse and part.candidate is not None and part.champion is not None
    ]
    return found


def _said(rule: Rule, ours: float, theirs: float) -> str:
    """Rounded so that they never look equal when they are not."""
    better = rule.figure.better_by(ours, theirs)
    relation = "as good" if better == 0 else f"{'better' if better > 0 else 'worse'} by {abs(better):.4g}"
    return f"{rule.metric} {ours:.4f} against the champion's {theirs:.4f}, {relation}"
