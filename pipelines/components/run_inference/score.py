"""Rows with features → rows with a class and a probability. Called by component.py.

Only rows that are `ok` reach the model; the others pass by with nulls, so that rows and order stay.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.run_inference.model import HIGH, LOW, Model, check_columns, load_model
from pipelines.errors import PipelineError
from pipelines.report import Step, model_version

OURS = ("line", "user_id", "status")
SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("user_id", pa.int64()),
        ("Predicted_Income_Class", pa.string()),
        ("probability", pa.float64()),
        ("status", pa.string()),
    ]
)
CHUNK = 200_000


def score(model: tuple[str, int, str], paths: tuple[str, str], step: Step) -> None:
    """Scores the first path's rows with `(name, version, type)` and writes them to the second."""
    name, version, model_type = model
    step.inputs.append(model_version(name, version))
    loaded = load_model(name, version, model_type)
    step.facts["environment"] = loaded.environment
    with ExitStack() as stack:
        features = stack.enter_context(pq.ParquetFile(paths[0]))
        given = {field.name: str(field.type) for field in features.schema_arrow if field.name not in OURS}
        check_columns(loaded.columns, given, f"models:/{name}/{version}")
        writer = stack.enter_context(pq.ParquetWriter(paths[1], SCHEMA, compression="zstd"))
        step.facts |= _written(loaded, features.iter_batches(CHUNK), writer)


def predict(model: Model, rows: pa.Table) -> pa.Table:
    """The rows with their predictions, null where the status is not `ok`."""
    wanted = pc.equal(rows.column("status"), "ok")
    frame = rows.filter(wanted).select(list(model.columns)).to_pandas()
    probability = np.asarray(model.probability(frame) if len(frame) else [], dtype=np.float64)
    if len(probability) != len(frame) or not np.isfinite(probability).all():
        raise PipelineError("the model gave no finite probability for some row that has all features")
    places = pc.if_else(wanted, pc.subtract(pc.cumulative_sum(pc.cast(wanted, pa.int64())), 1), None)
    # A tie goes to the lower class, as scikit-learn's own predict() decides it: the first of the sorted classes.
    classes = pa.array(np.where(probability > 0.5, HIGH, LOW), pa.string())
    columns = [
        rows.column("line"),
        rows.column("user_id"),
        classes.take(places),
        pa.array(probability).take(places),
        rows.column("status"),
    ]
    return pa.table(columns, schema=SCHEMA)


def _written(model: Model, batches: Iterator[pa.RecordBatch], writer: pq.ParquetWriter) -> dict[str, Any]:
    rows = scored = high = 0
    for batch in batches:
        table = predict(model, pa.Table.from_batches([batch]))
        writer.write_table(table)
        rows += table.num_rows
        scored += table.num_rows - table.column("probability").null_count
        high += pc.sum(pc.equal(table.column("Predicted_Income_Class"), HIGH)).as_py() or 0
    return {"rows": rows, "scored": scored, "classes": {LOW: scored - high, HIGH: high}}
