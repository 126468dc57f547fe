"""The predictions of all shards → the output object, and how far they have drifted. Called by component.py.

The bytes depend on the rows and the run's parameters only, not on the number of shards, and the object's metadata
carries the run key: a second execution finds them there and writes nothing, and whoever is told of the object knows
which run made it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.components.write_data.merge import compose, model_of
from pipelines.components.write_data.observation import drift_observation
from pipelines.report import Step, stored_object
from pipelines.storage import ObjectRef, upload


@dataclass(frozen=True)
class Parts:
    """The rows that were requested, and what the shards have left of them, in any order."""

    requested: str
    predictions: Sequence[str]
    sketches: Sequence[str]


def write(parts: Parts, target: ObjectRef, run_key: str, as_of: str, step: Step) -> float:
    """Puts the predictions where they belong, in one write, and returns the coverage:

    the share of rows that were scored.
    """
    paths = [Path(path) for path in parts.predictions]
    model, rows = model_of(paths), pq.read_metadata(parts.requested).num_rows
    made = {"run_key": run_key, "model": model, "as_of": as_of}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.parquet")
        statuses = compose(paths, path, {f"kfp_triggers.{name}": value for name, value in made.items()}, rows)
        stored = upload(target, path, {"run-key": run_key})
        columns = {field.name: str(field.type) for field in pq.read_schema(path)}
    step.outputs.append(stored_object(target, stored, rows, columns))
    coverage = float(statuses["ok"] / max(rows, 1))
    step.facts |= {"rows": rows, "statuses": dict(statuses), "coverage": coverage, "shards": len(paths)}
    about = {"as_of": as_of, "subject": target.uri, "rows": rows, "coverage": coverage}
    step.facts |= drift_observation([Path(path) for path in parts.sketches], model, about)
    return coverage
