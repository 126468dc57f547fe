"""A fitted model + a test set → how good it is. Called by component.py."""

from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pyarrow.parquet as pq
from sklearn import metrics

from pipelines.errors import PipelineError
from pipelines.report import Step

LOW, HIGH = "<=50K", ">50K"
ROC_POINTS = 100


@dataclass(frozen=True)
class Quality:
    """Figures of a binary classifier, and the two pictures that KFP draws of them."""

    figures: dict[str, float]
    roc: tuple[list[float], list[float], list[float]]  # false positive rate, true positive rate, threshold
    confusion: list[list[int]]


def evaluate(model: str, test_set: str, step: Step) -> Quality:
    """Scores the test set with the saved model, as an inference run would load it."""
    table = pq.read_table(test_set, partitioning=None)
    estimator = mlflow.sklearn.load_model(model)
    classes = [str(name) for name in estimator.classes_]
    if sorted(classes) != [LOW, HIGH]:
        raise PipelineError(f"the model tells {', '.join(classes[:5])} apart; it must be {LOW} and {HIGH}")
    frame = table.select(list(mlflow.models.Model.load(model).signature.inputs.input_names())).to_pandas()
    probability = estimator.predict_proba(frame)[:, classes.index(HIGH)]
    quality = measure(table.column("income").to_numpy(), probability)
    step.facts |= {"rows": table.num_rows, "metrics": quality.figures}
    return quality


def measure(truth: Any, probability: Any) -> Quality:
    """Accuracy, areas, and the curves behind them."""
    positive, said = np.asarray(truth) == HIGH, np.asarray(probability) > 0.5
    rates = metrics.roc_curve(positive, probability)
    figures = {
        "accuracy": metrics.accuracy_score(positive, said),
        "auc": metrics.roc_auc_score(positive, probability),
        "f1": metrics.f1_score(positive, said, zero_division=0.0),
        "log_loss": metrics.log_loss(positive, probability),
        "test_rows": float(len(positive)),
    }
    confusion = metrics.confusion_matrix(positive, said, labels=[False, True]).tolist()
    return Quality({name: float(value) for name, value in figures.items()}, thinned(*rates), confusion)


def thinned(false: Any, true: Any, thresholds: Any) -> tuple[list[float], list[float], list[float]]:
    """At most ROC_POINTS points, both ends among them.

    The first threshold is infinite, which KFP cannot write: clipped to 1.
    """
    places = np.unique(np.linspace(0, len(false) - 1, min(ROC_POINTS, len(false))).round().astype(int))
    return false[places].tolist(), true[places].tolist(), np.clip(thresholds[places], 0.0, 1.0).tolist()
