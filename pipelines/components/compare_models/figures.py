"""How good probabilities are, as one number; and how sure a difference between two of them is. Called by compare.py.

Written out in numpy, with a weight for each row, because the bootstrap asks a thousand times: scikit-learn sorts the
rows anew each time. tests/pipelines/test_compare_models.py holds every figure to scikit-learn's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.errors import PipelineError

RESAMPLES = 1000  #: of the bootstrap; its ends are then known to about a tenth of the interval's width
LEVEL = 0.95  #: of the interval that is reported
FLOOR = np.finfo(np.float64).eps  #: a probability of 0 or 1 that is wrong costs no more than this one in the log loss


@dataclass(frozen=True)
class Scored:
    """The rows of a hold-out: which of them are >50K, and the probability that a model gave each."""

    truth: np.ndarray  #: bool
    probability: np.ndarray  #: float64, finite

    @cached_property
    def said(self) -> np.ndarray:
        """The class that run_inference would write: a tie goes to the lower one."""
        return self.probability > 0.5

    @cached_property
    def rank(self) -> np.ndarray:
        """The place of each row's probability among the different ones, the lowest first."""
        places: np.ndarray = np.unique(self.probability, return_inverse=True)[1]
        return places

    @cached_property
    def surprise(self) -> np.ndarray:
        """What each row costs in the log loss."""
        of_truth = np.where(self.truth, self.probability, 1 - self.probability)
        cost: np.ndarray = -np.log(np.clip(of_truth, FLOOR, 1 - FLOOR))
        return cost

    def only(self, rows: np.ndarray) -> "Scored":
        """The same of some of the rows."""
        return Scored(self.truth[rows], self.probability[rows])


@dataclass(frozen=True)
class Metric:
    """A figure of scored rows, each of which counts `weight` times; NaN where it is not defined."""

    of: Callable[[Scored, np.ndarray], float]
    sign: int = 1  #: -1 where less is better

    def better_by(self, candidate: float, champion: float) -> float:
        """How much better the candidate is: negative when it is worse."""
        return self.sign * (candidate - champion)


@dataclass(frozen=True)
class Interval:
    """Where the candidate's advantage lies, were other rows drawn from where these came from."""

    low: float
    high: float
    share: float  #: of the resamples in which the candidate is better by the margin


def metric_named(name: str) -> Metric:
    """One of METRICS."""
    if name not in METRICS:
        raise PipelineError(f"metric {name!r} is not known; it can be: {', '.join(METRICS)}")
    return METRICS[name]


def value(metric: Metric, scored: Scored) -> float:
    """The figure of all rows, each once."""
    return metric.of(scored, np.ones(len(scored.truth)))


def interval(metric: Metric, candidate: Scored, champion: Scored, margin: float) -> Interval | None:
    """The paired bootstrap: both models on the same rows, drawn again and again, the same draws each time.

    None where the figure is undefined in most draws, because so few rows are of one class.
    """
    draw, rows = np.random.default_rng(0), len(candidate.truth)
    found = []
    for _ in range(RESAMPLES):
        weight = np.bincount(draw.integers(0, rows, rows), minlength=rows).astype(np.float64)
        found.append(metric.better_by(metric.of(candidate, weight), metric.of(champion, weight)))
    known = np.array([one for one in found if not np.isnan(one)])
    if len(known) < RESAMPLES / 2:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), float((known >= margin).mean()))


def _counts(scored: Scored, weight: np.ndarray) -> tuple[float, float, float, float]:
    """True and false positives, false and true negatives."""
    high, said = scored.truth, scored.said
    return (
        float(weight[high & said].sum()), float(weight[~high & said].sum()),
        float(weight[high & ~said].sum()), float(weight[~high & ~said].sum()),
    )  # fmt: skip


def _accuracy(scored: Scored, weight: np.ndarray) -> float:
    return float(weight[scored.truth == scored.said].sum() / weight.sum())


def _balanced_accuracy(scored: Scored, weight: np.ndarray) -> float:
    hits, false, missed, right = _counts(scored, weight)
    return (hits / (hits + missed) + right / (right + false)) / 2 if hits + missed and right + false else np.nan


def _f1(scored: Scored, weight: np.ndarray) -> float:
    hits, false, missed, _ = _counts(scored, weight)
    return 2 * hits / (2 * hits + false + missed) if hits + false + missed else 0.0


def _by_rank(scored: Scored, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much weight of each class there is at each probability, the lowest first."""
    high = np.bincount(scored.rank, weight * scored.truth)
    return high, np.bincount(scored.rank, weight) - high


def _auc(scored: Scored, weight: np.ndarray) -> float:
    """P(a row of >50K has a higher probability than one of <=50K), ties by half."""
    high, low = _by_rank(scored, weight)
    if not high.sum() or not low.sum():
        return np.nan
    below = np.cumsum(low) - low
    return float((high * (below + low / 2)).sum() / (high.sum() * low.sum()))


def _average_precision(scored: Scored, weight: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall that it adds."""
    high, low = (one[::-1] for one in _by_rank(scored, weight))
    if not high.sum():
        return np.nan
    found = np.cumsum(high)
    precision = np.divide(found, found + np.cumsum(low), out=np.zeros_like(found), where=found > 0)
    return float((precision * high).sum() / high.sum())


def _log_loss(scored: Scored, weight: np.ndarray) -> float:
    return float((scored.surprise * weight).sum() / weight.sum())


def _brier(scored: Scored, weight: np.ndarray) -> float:
    return float(((scored.probability - scored.truth) ** 2 * weight).sum() / weight.sum())


METRICS = {
    "accuracy": Metric(_accuracy),
    "balanced_accuracy": Metric(_balanced_accuracy),
    "auc": Metric(_auc),
    "average_precision": Metric(_average_precision),
    "f1": Metric(_f1),
    "log_loss": Metric(_log_loss, sign=-1),
    "brier": Metric(_brier, sign=-1),
}
