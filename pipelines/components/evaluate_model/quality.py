"""True classes + probabilities → how good a binary classifier is. Called by evaluate.py, and by compare_models.

Nothing here knows a model or a file.
"""

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from pipelines.errors import PipelineError

LOW, HIGH = "<=50K", ">50K"
POINTS = 100  # of a curve, at most
BINS = 10  # of the calibration, with as many rows in each


@dataclass(frozen=True)
class Quality:
    """Figures of a binary classifier, and the curves behind them."""

    figures: dict[str, float]
    roc: tuple[list[float], list[float], list[float]]  # false positive rate, true positive rate, threshold
    precision_recall: tuple[list[float], list[float]]  # recall, precision
    calibration: tuple[list[float], list[float]]  # what was said and what came true, by bin
    confusion: list[list[int]]  # true class by class said, LOW first


def measure(positive: np.ndarray, probability: np.ndarray) -> Quality:
    """All of it, from what is true and what P(>50K) was said; both classes must be there."""
    if np.isnan(probability).any():
        raise PipelineError(
            f"the model gives no probability for {int(np.isnan(probability).sum())} rows of the test set"
        )
    if positive.all() or not positive.any():
        raise PipelineError("the test set has one class only, so nothing tells a good model from a bad one")
    said, true = calibration(positive, probability)
    precision, recall, _ = metrics.precision_recall_curve(positive, probability)
    kept = _thin(len(recall))
    return Quality(
        figures_of(positive, probability),
        thinned(*metrics.roc_curve(positive, probability)),
        (recall[kept].tolist(), precision[kept].tolist()),
        (said.tolist(), true.tolist()),
        metrics.confusion_matrix(positive, probability > 0.5, labels=[False, True]).tolist(),
    )


def figures_of(positive: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """The figures by name. `log_loss`, `brier` and `calibration_error` are better when smaller, all others when larger.

    The class said is `>50K` where its probability is above one half. `calibration_error` is the expected one: by how
    much the probabilities of a bin of equally many rows are off, on average.
    """
    said = probability > 0.5
    bins = np.array_split(np.argsort(probability, kind="stable"), BINS)
    gaps = [abs(probability[part].mean() - positive[part].mean()) * len(part) for part in bins if len(part)]
    found = {
        "accuracy": metrics.accuracy_score(positive, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(positive, said),
        "auc": metrics.roc_auc_score(positive, probability),
        "average_precision": metrics.average_precision_score(positive, probability),
        "f1": metrics.f1_score(positive, said, zero_division=0.0),
        "log_loss": metrics.log_loss(positive, probability),
        "brier": metrics.brier_score_loss(positive, probability),
        "calibration_error": sum(gaps) / len(positive),
        "test_rows": len(positive),
    }
    return {name: float(value) for name, value in found.items()}


def slice_figures(positive: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """What can be said of a slice, which may have one class only, or no row at all."""
    if not len(positive):
        return {"rows": 0, "share": None, "said": None, "accuracy": None, "auc": None}
    both = positive.any() and not positive.all()
    return {
        "rows": len(positive),
        "share": float(positive.mean()),
        "said": float(probability.mean()),
        "accuracy": float(metrics.accuracy_score(positive, probability > 0.5)),
        "auc": float(metrics.roc_auc_score(positive, probability)) if both else None,
    }


def calibration(positive: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean probability said, and the share that was true, in bins of equally many rows."""
    bins = [part for part in np.array_split(np.argsort(probability, kind="stable"), BINS) if len(part)]
    return np.array([probability[part].mean() for part in bins]), np.array([positive[part].mean() for part in bins])


def thinned(
    false: np.ndarray, true: np.ndarray, thresholds: np.ndarray
) -> tuple[list[float], list[float], list[float]]:
    """At most POINTS points of a ROC curve, both ends among them.

    The first threshold is infinite, which KFP cannot write: clipped to 1.
    """
    places = _thin(len(false))
    return false[places].tolist(), true[places].tolist(), np.clip(thresholds[places], 0.0, 1.0).tolist()


def _thin(points: int) -> np.ndarray:
    return np.unique(np.linspace(0, points - 1, min(POINTS, points)).round().astype(int))
