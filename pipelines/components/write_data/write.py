"""Predictions → the output object. Called by component.py.

The bytes depend on the rows and the run's parameters only, and the object's metadata carries the run key: a second
execution finds them there and writes nothing, and whoever is told of the object knows which run made it.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.report import Step, stored_object
from pipelines.storage import ObjectRef, upload

STATUSES = ("ok", "unknown", "expired", "invalid")
CHUNK = 1_000_000


@dataclass(frozen=True)
class Made:
    """By what the predictions were made; stands in the file's own metadata."""

    run_key: str
    model_name: str
    model_version: int
    as_of: str

    def metadata(self) -> dict[str, str]:
        return {
            "kfp_triggers.run_key": self.run_key,
            "kfp_triggers.model": f"models:/{self.model_name}/{self.model_version}",
            "kfp_triggers.as_of": self.as_of,
        }


def write(predictions: str, target: ObjectRef, made: Made, step: Step) -> float:
    """Puts the predictions where they belong, in one write, and returns the coverage:

    the share of rows that were scored.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.parquet")
        statuses = compose(Path(predictions), path, made)
        rows = statuses.total()
        stored = upload(target, path, {"run-key": made.run_key})
        columns = {field.name: str(field.type) for field in pq.read_schema(path)}
    step.outputs.append(stored_object(target, stored, rows, columns))
    coverage = statuses["ok"] / max(rows, 1)
    step.facts |= {"rows": rows, "statuses": dict(statuses), "coverage": coverage}
    return coverage


def compose(predictions: Path, path: Path, made: Made) -> Counter[str]:
    """Writes the output file, row groups of a fixed size whatever the input's, and counts its statuses."""
    counts: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
    with pq.ParquetFile(predictions) as file:
        schema = file.schema_arrow.with_metadata(made.metadata())
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in file.iter_batches(CHUNK):
                table = pa.Table.from_batches([batch]).cast(schema)
                writer.write_table(table)
                counts.update(
                    {item["values"].as_py(): item["counts"].as_py() for item in pc.value_counts(table.column("status"))}
                )
    return counts
