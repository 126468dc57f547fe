"""How far what was scored has moved from what the model was trained on: figures of a sketch. Called by write_data.

For each column, and for the scores under the name `(score)`:

- `psi`, the population stability index: the sum over bins of (a - e) * ln(a / e), where e is the reference's share of
  the bin and a the share found (N. Siddiqi, Credit Risk Scorecards, 2006; it is Jeffreys' divergence of the two).
  The usual reading: below 0.1 no change, 0.1 to 0.25 some, above 0.25 a change that calls for action. A number's fine
  bins are put together to ten of about equal share in the reference, and one on each side for what lies outside; a
  missing value is a bin of its own. A share below FLOOR counts as FLOOR, so that an empty bin stays finite. Without any
  change it is still about (bins - 1) * (1/rows + 1/reference rows): of fewer than some 200 rows it says little.
- `statistic` and `p_value` of `test`, over the values that are there: `ks`, the two-sample Kolmogorov-Smirnov distance
  taken at the fine bins' edges only, so a lower bound of the true one, and its p-value an upper bound; or `chi2`, of
  homogeneity over the categories. With many rows they call any change significant: the PSI says whether it matters.
- `missing` and `reference_missing`, shares of the rows; `rows` counted.
"""

from typing import Any

import numpy as np
from scipy.special import chdtrc, kolmogorov

from pipelines.sketch import Reference, Sketch, expected

FLOOR = 1e-4
TENTHS = 10


def drift_of(sketch: Sketch) -> dict[str, dict[str, Any]]:
    """The figures of each column; of no rows, or of a reference without any, those of no change."""
    return {name: _figures(sketch.reference[name], sketch.counts[name], name) for name in sketch.reference}


def psi(reference: np.ndarray, found: np.ndarray) -> float:
    """The population stability index of counts over the same bins; 0 where one side has none."""
    if not reference.sum() or not found.sum():
        return 0.0
    e = np.maximum(reference / reference.sum(), FLOOR)
    a = np.maximum(found / found.sum(), FLOOR)
    return float(np.sum((a - e) * np.log(a / e)))


def ks(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Distance of two distributions over ordered bins, and the asymptotic p-value of it."""
    many, few = int(reference.sum()), int(found.sum())
    if not many or not few:
        return 0.0, 1.0
    distance = float(np.max(np.abs(np.cumsum(reference) / many - np.cumsum(found) / few)))
    return distance, float(kolmogorov(np.sqrt(many * few / (many + few)) * distance))


def chi2(reference: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic of homogeneity over the categories that either side has, and its p-value."""
    both = np.array([reference, found], np.float64)[:, (reference + found) > 0]
    totals = both.sum(axis=1)
    if not totals.all() or both.shape[1] < 2:
        return 0.0, 1.0
    fitting = np.outer(totals, both.sum(axis=0)) / totals.sum()
    statistic = float(np.sum((both - fitting) ** 2 / fitting))
    return statistic, float(chdtrc(both.shape[1] - 1, statistic))


def _figures(column: Reference, counts: np.ndarray, name: str) -> dict[str, Any]:
    reference = expected(column, name)
    number = column["kind"] == "number"
    tested = ks if number else chi2
    statistic, p_value = tested(reference[:-1], counts[:-1])
    groups = _tenths(reference) if number else np.arange(len(reference))
    return {
        "psi": psi(np.bincount(groups, reference), np.bincount(groups, counts, len(np.unique(groups)))),
        "statistic": statistic,
        "p_value": p_value,
        "test": "ks" if number else "chi2",
        "missing": _share(counts),
        "reference_missing": _share(reference),
        "rows": int(counts.sum()),
    }


def _tenths(reference: np.ndarray) -> np.ndarray:
    """For each fine bin the number of the coarse one it goes into: by the middle of its share in the reference.

    What lies outside, the first bin and the last, and what is missing stay by themselves.
    """
    inside = reference[1:-2]
    middle = (np.cumsum(inside) - inside / 2) / max(inside.sum(), 1)
    tenths = np.minimum((middle * TENTHS).astype(np.int64), TENTHS - 1)
    return np.unique(np.concatenate([[-1], tenths, [TENTHS, TENTHS + 1]])[-len(reference) :], return_inverse=True)[1]


def _share(counts: np.ndarray) -> float:
    total = int(counts.sum())
    return int(counts[-1]) / total if total else 0.0
