"""The predictions of all shards as one Parquet file, in the order of the requested rows. Called by write.py.

The shards are put in order by their lines, which grow through the file: KFP promises no order of what it collects.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import PipelineError
from pipelines.requested import LINE, STATUS, regrouped

STATUSES = ("ok", "unknown", "expired", "invalid")
MODEL = b"kfp_triggers.model"  #: in the schema of predictions: `models:/name/version`
ROW_GROUP = 1_000_000


def model_of(predictions: Sequence[Path]) -> str:
    """The version of a registered model that scored all of the parts, as MLflow writes it: `models:/name/version`."""
    found = {(pq.read_schema(path).metadata or {}).get(MODEL, b"").decode() for path in predictions}
    if len(found) != 1:
        raise PipelineError(
            f"the shards were scored by different models: {', '.join(sorted(found))}; the alias moved meanwhile. "
            "Run it again, or give model_version"
        )
    model = str(found.pop())
    if not model:
        raise PipelineError("the predictions do not say which model made them: no kfp_triggers.model in their schema")
    return model


def compose(predictions: Sequence[Path], path: Path, metadata: Mapping[str, str], rows: int) -> Counter[str]:
    """Writes the output file, row groups of a fixed size whatever the input's, and counts its statuses."""
    counts: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
    schema = pq.read_schema(predictions[0]).with_metadata(dict(metadata))
    words = [field.name for field in schema if pa.types.is_string(field.type)]  # of ids a dictionary is larger
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=words) as writer:
        for table in regrouped(_in_order(predictions), ROW_GROUP):
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            found = pc.value_counts(table.column(STATUS))
            counts.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    if counts.total() != rows:
        raise PipelineError(f"{rows} rows were requested, and the shards hold {counts.total()}: run all of them again")
    return counts


def _in_order(predictions: Sequence[Path]) -> Iterator[pa.Table]:
    """Row group by row group; a line that is not after the one before it is an error, never a row twice."""
    last = 0
    for path in sorted(predictions, key=_first_line):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                if table.num_rows:
                    if table.column(LINE)[0].as_py() <= last:
                        raise PipelineError("two shards hold the same rows: run all of them again")
                    last = table.column(LINE)[-1].as_py()
                yield table


def _first_line(path: Path) -> int:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1, columns=[LINE]):
            return int(batch.column(0)[0].as_py())
    return 0
