"""A fitted model + the test set → its evaluation, and what it leaves. Called by component.py.

The model is loaded as an inference run would load it, whatever its type.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.components.evaluate_model.importance import importance
from pipelines.components.evaluate_model.quality import HIGH, LOW, Quality, measure, slice_figures
from pipelines.components.prepare_data.about import about
from pipelines.page import publish
from pipelines.registered_model import Model, check_columns, load_folder
from pipelines.report import Step
from pipelines.sketch import reference_of
from pipelines.slices import slices_of

NOT_FEATURES = ("user_id", "event_timestamp", "income")
PAGE = "evaluation.html"
CLASSES = [LOW, HIGH]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the newest labels, and what its scorings will be held to."""

    quality: Quality
    slices: dict[str, dict[str, float | None]]
    importance: dict[str, float]  # feature → by how much the area under the ROC curve falls without it
    truth: np.ndarray
    probability: np.ndarray
    reference: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)  # what was evaluated, for the head of the report

    @property
    def figures(self) -> dict[str, float]:
        return self.quality.figures


def evaluate(folder: str, paths: tuple[str, str], slices: Sequence[str], step: Step) -> Evaluation:
    """Scores the test set with the saved model; the paths are those of the training and of the test set."""
    train, test = (pq.read_table(path, partitioning=None) for path in paths)
    model = load_folder(folder, "the model")
    features = {one.name: str(one.type) for one in test.schema if one.name not in NOT_FEATURES}
    check_columns(model.columns, features, "the model")
    parts = slices_of(test, slices)
    truth = test.column("income").to_numpy() == HIGH
    frame = test.select(list(model.columns)).to_pandas()
    probability = np.asarray(model.probability(frame), np.float64)
    quality = measure(truth, probability)
    by_slice = {name: slice_figures(truth[part], probability[part]) for name, part in parts.items()}
    step.facts |= {"rows": test.num_rows, "metrics": quality.figures, "slices": by_slice}
    return Evaluation(
        quality,
        by_slice,
        importance(model.probability, frame, truth),
        truth,
        probability,
        reference_of(train.select(list(model.columns)), probability),
        _facts(model, paths[1], train, test),
    )


def leave(found: Evaluation, told: Mapping[str, str], paths: tuple[str, str], step: Step) -> None:
    """Writes the report to the first path, and beside the run's reports, and the reference to the second."""
    from pipelines.components.evaluate_model.document import document  # noqa: PLC0415 - matplotlib: after the figures

    Path(paths[1]).write_text(json.dumps(found.reference, allow_nan=False, indent=1), encoding="utf-8")
    publish(document(found, told), paths[0], PAGE, step)


def _facts(model: Model, test_path: str, train: pa.Table, test: pa.Table) -> dict[str, str]:
    window = about(test_path)
    first, last = (test.column("event_timestamp")[place].as_py() for place in (0, -1))
    return {
        "type": model.model_type,
        "features": f"{window['features']} ({len(model.columns)})",
        "window": f"{window['start']} to {window['end']}",
        "trained on": f"{train.num_rows:,} labels",
        "tested on": f"{test.num_rows:,} labels, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC",
    }
