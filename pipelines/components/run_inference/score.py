"""Rows with features → rows with a class and a probability. Called by component.py.

Only rows that are `ok` reach the model; the others pass by with nulls, so that rows and order stay. Read, scored and
written in chunks: the memory does not grow with the file.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import PipelineError
from pipelines.model_flavors import HIGH, LOW
from pipelines.registered_model import Model, check_columns, load_model, resolve
from pipelines.report import Step, model_version
from pipelines.requested import GRID, between_steps
from pipelines.sketch import Sketch

OURS = ("line", "user_id", "status")
PREDICTED = ("line", "user_id", "Predicted_Income_Class", "probability", "status")
FEATURES = b"kfp_triggers.features"  #: in the input's schema: a JSON list of which columns are features
MODEL = b"kfp_triggers.model"  #: in the output's schema: the version that scored it, `models:/name/version`
CHUNK = GRID  # rows: shards begin at multiples of it, and a row is scored in the same batch however many there are


@dataclass(frozen=True)
class Wanted:
    """What is to be scored with: a version of a registered model, or, if that is 0, an alias of it."""

    name: str
    version: int
    alias: str = ""
    model_type: str = ""
    keep_features: bool = False  #: whether the features stand in the output too


@dataclass(frozen=True)
class Paths:
    """The step's files: features in; predictions (Parquet) and the sketch of what was scored (JSON) out."""

    features: str
    predictions: str
    sketch: str


def score(wanted: Wanted, paths: Paths, step: Step) -> int:
    """Scores all rows of a file; returns the model version that did."""
    version = resolve(wanted.name, wanted.version, wanted.alias)
    uri = f"models:/{wanted.name}/{version}"
    step.inputs.append(model_version(wanted.name, version))
    model = load_model(wanted.name, version, wanted.model_type)
    step.facts |= {"model": uri, "model_alias": wanted.alias, "model_type": model.model_type}
    step.facts["environment"] = model.environment
    sketch = Sketch(model.reference) if model.reference else None
    with pq.ParquetFile(paths.features) as features:
        given = features.schema_arrow
        check_columns(model.columns, {name: str(given.field(name).type) for name in feature_names(given)}, uri)
        passed = [n for n in given.names if n not in OURS and (wanted.keep_features or n not in model.columns)]
        schema = output_schema(given, passed).with_metadata({MODEL: uri.encode()})
        step.facts |= _written(model, features.iter_batches(CHUNK), (Path(paths.predictions), schema), sketch)
    Path(paths.sketch).write_text(json.dumps(sketch.document() if sketch else {}), encoding="utf-8")
    return version


def feature_names(schema: pa.Schema) -> list[str]:
    """Which columns of the input are features: those its schema names, or, if it names none, all but ours."""
    named = (schema.metadata or {}).get(FEATURES)
    return json.loads(named) if named else [name for name in schema.names if name not in OURS]


def output_schema(given: pa.Schema, passed: Sequence[str]) -> pa.Schema:
    """Our columns, then those that pass by as they are."""
    if clash := [name for name in passed if name in PREDICTED]:
        raise PipelineError(f"the output has columns of its own called {', '.join(clash)}; do not keep yours")
    types = dict(zip(PREDICTED, (pa.int64(), pa.int64(), pa.string(), pa.float64(), pa.string()), strict=True))
    return pa.schema([*types.items(), *(given.field(name) for name in passed)])


def predict(model: Model, rows: pa.Table, passed: Sequence[str] = ()) -> pa.Table:
    """The rows with their predictions, null where the status is not `ok`, and the columns that pass by."""
    wanted = pc.equal(rows.column("status"), "ok")
    every = pc.all(wanted, min_count=0).as_py()
    frame = (rows if every else rows.filter(wanted)).select(list(model.columns)).to_pandas()
    probability = np.asarray(model.probability(frame) if len(frame) else [], dtype=np.float64)
    if len(probability) != len(frame) or not ((probability >= 0) & (probability <= 1)).all():
        raise PipelineError("the model gave no probability between 0 and 1 for some row that has all features")
    scores = pa.array(probability)
    if not every:
        scores = scores.take(pc.if_else(wanted, pc.subtract(pc.cumulative_sum(pc.cast(wanted, pa.int64())), 1), None))
    columns: list[Any] = [
        rows.column("line"),
        rows.column("user_id"),
        # A tie goes to the lower class, as scikit-learn's own predict() decides it: the first of the sorted classes.
        pc.if_else(pc.greater(scores, 0.5), HIGH, LOW),
        scores,
        rows.column("status"),
        *(rows.column(name) for name in passed),
    ]
    return pa.table(columns, schema=output_schema(rows.schema, passed))


def _written(
    model: Model, batches: Iterator[pa.RecordBatch], output: tuple[Path, pa.Schema], sketch: Sketch | None
) -> dict[str, Any]:
    """Chunk by chunk: scored, and, while the next one is scored, written and counted."""
    path, schema = output
    totals: Counter[str] = Counter(rows=0, scored=0, high=0)
    with between_steps(path, schema) as writer, ThreadPoolExecutor(1) as beside:

        def keep(given: pa.Table, found: pa.Table) -> None:
            writer.write_table(found.replace_schema_metadata(schema.metadata))
            if sketch:
                sketch.add(given, pc.fill_null(found.column("probability"), float("nan")).to_numpy())
            totals.update(
                rows=found.num_rows,
                scored=found.num_rows - found.column("probability").null_count,
                high=pc.sum(pc.equal(found.column("Predicted_Income_Class"), HIGH)).as_py() or 0,
            )

        kept: Future[None] | None = None
        for batch in batches:
            given = pa.Table.from_batches([batch])
            found = predict(model, given, schema.names[len(PREDICTED) :])
            if kept:
                kept.result()
            kept = beside.submit(keep, given, found)
        if kept:
            kept.result()
    low = totals["scored"] - totals["high"]
    return {"rows": totals["rows"], "scored": totals["scored"], "classes": {LOW: low, HIGH: totals["high"]}}
