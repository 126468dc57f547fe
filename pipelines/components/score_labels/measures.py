"""How good probabilities were, once the truth is known. Called by score.py.

numpy only: scikit-learn's import takes longer than the work. The tests hold each figure to scikit-learn's.
"""

import numpy as np

LEAST = 1e-15  #: a probability of 0 that was wrong costs so much and not infinity, as in scikit-learn
TENTHS = 10


def measure(high: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Figures of at least one row; `auc` only where both classes occur, for without it is no number.

    `calibration_error` is the expected one: over ten bins of probability, the mean distance of the mean probability
    from the share of >50K, by rows.
    """
    said = probability > 0.5
    found = {
        "rows": float(len(high)),
        "accuracy": float((said == high).mean()),
        "log_loss": _log_loss(high, probability),
        "calibration_error": _calibration_error(high, probability),
        "positive_rate": float(high.mean()),
        "predicted_positive_rate": float(said.mean()),
    }
    return found if high.all() or not high.any() else found | {"auc": _auc(high, probability)}


def _log_loss(high: np.ndarray, probability: np.ndarray) -> float:
    clipped = np.clip(probability, LEAST, 1 - LEAST)
    return float(-np.mean(np.where(high, np.log(clipped), np.log1p(-clipped))))


def _calibration_error(high: np.ndarray, probability: np.ndarray) -> float:
    bins = np.minimum((probability * TENTHS).astype(np.int64), TENTHS - 1)
    return float(np.abs(np.bincount(bins, probability, TENTHS) - np.bincount(bins, high, TENTHS)).sum() / len(high))


def _auc(high: np.ndarray, probability: np.ndarray) -> float:
    """The share of pairs in the right order, a tie counting half: from the mean ranks."""
    _, place, count = np.unique(probability, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    positive = int(high.sum())
    return float((ranks[high].sum() - positive * (positive + 1) / 2) / (positive * (len(high) - positive)))
