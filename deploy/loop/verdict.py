"""Whether the loop did what it is for: its figures against the bounds, a line each. Called by `loop`.

- With changes: after each of them the accuracy of the last three files before the next one is within two points of the
  oracle's, and there were fewer than a third of the oracle's retrainings.
- Without: no retraining at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from chronicle import Chronicle

WITHIN = 0.02  #: of the oracle's accuracy
LAST = 3  #: files of a stretch in which nothing changes


@dataclass(frozen=True)
class Finding:
    """One bound, and what was found."""

    text: str
    good: bool


def findings(told: Chronicle) -> list[Finding]:
    """All bounds that hold for this world."""
    if not told.world.changes:
        text = f"retrainings in {len(told.weeks)} files without any change: {told.retrains}; none is allowed"
        return [Finding(text, told.retrains == 0)]
    return [*(_recovered(told, *one) for one in stretches(told)), _rare(told)]


def stretches(told: Chronicle) -> Sequence[tuple[str, int, int]]:
    """What holds, from which week and up to which one."""
    world = told.world
    return (
        ("before any change", 1, world.unit_from - 1),
        ("after the change of unit", world.unit_from, world.concept_from - 1),
        ("after the change of concept", world.concept_from, world.weeks),
    )


def _recovered(told: Chronicle, name: str, first: int, last: int) -> Finding:
    chosen = slice(max(first, last - LAST + 1) - 1, last)
    loop = mean(week.accuracy for week in told.weeks[chosen])
    oracle, never = mean(told.compared.weekly[chosen]), mean(told.compared.never[chosen])
    text = (
        f"{name}, weeks {chosen.start + 1} to {last}: accuracy {loop:.3f}, oracle {oracle:.3f} "
        f"({100 * (loop - oracle):+.1f} points, -2.0 allowed), never retrained {never:.3f}"
    )
    return Finding(text, loop >= oracle - WITHIN)


def _rare(told: Chronicle) -> Finding:
    oracle = told.compared.retrains
    text = f"retrainings: {told.retrains}, oracle {oracle}; fewer than a third are allowed"
    return Finding(text, 3 * told.retrains < oracle)
