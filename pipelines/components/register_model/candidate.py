"""What there is to register, from what the earlier steps left. Called by component.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.prepare_data.about import about
from pipelines.components.prepare_data.labels import TIME
from pipelines.components.register_model.registry import Candidate
from pipelines.model_flavors import SCORERS
from pipelines.registered_model import REFERENCE


@dataclass(frozen=True)
class Left:
    """The files of the steps before: the saved model, its training set, what scorings are held to, two pages."""

    model: str
    train: str
    reference: str
    evaluation: str
    validation: str


def candidate(
    name: str, left: Left, figures: dict[str, float], validation: Mapping[str, Any], told: dict[str, str]
) -> Candidate:
    """A saved model under a name, with the tags that MLflow keeps and the files that go with it."""
    window = about(left.train)
    parts = urlsplit(told["repository"])
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme else told["repository"]
    tags = told | {
        "repository": plain,
        "data_window_start": window["start"],
        "data_window_end": window["end"],
        "trained_until": trained_until(left.train),
        "feature_service": window["features"],
        "training_rows": str(pq.read_metadata(left.train).num_rows),
        "model_type": model_type(left.model),
    }
    files = {
        f"model/{REFERENCE}": Path(left.reference),
        "evaluation.html": Path(left.evaluation),
        "validation.html": Path(left.validation),
    }
    return Candidate(Path(left.model), name, figures, tags | validated(validation), files)


def trained_until(train: str) -> str:
    """The last moment of the training part, RFC 3339: the window's end is later, for its newest share tests.

    compare_models judges a champion only on what came after it.
    """
    last: datetime = pc.max(pq.read_table(train, columns=[TIME], partitioning=None).column(TIME)).as_py()
    return last.isoformat()


def validated(result: Mapping[str, Any]) -> dict[str, str]:
    """The outcome of validate_data as tags; without a suite nobody looked, and no tag says `true`."""
    looked = bool(result.get("suite"))
    return {
        "validation_suite": str(result.get("suite", "")),
        "validation_suite_version": str(result.get("version", "")),
        "validation_success": str(bool(result.get("success"))).lower() if looked else "",
        "validation_expectations": str(int(result.get("expectations", 0))),  # a cluster hands on 7 as 7.0
        "validation_failed": str(int(result.get("failed", 0))),
    }


def model_type(folder: str) -> str:
    """The flavour by which run_inference would load it."""
    flavors = mlflow.models.Model.load(folder).flavors
    return next((name for name in SCORERS if name in flavors), "")
