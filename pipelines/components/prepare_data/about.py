"""What a training set says of itself, inside its own file. Written by training_set.py, read by register_model."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

ABOUT = b"kfp_triggers.training_set"


def labelled(table: pa.Table, about: dict[str, str]) -> pa.Table:
    """The table, carrying the window's ends and the features' name."""
    return table.replace_schema_metadata({ABOUT: json.dumps(about)})


def about(path: str) -> dict[str, str]:
    """What a file made from such a table says."""
    found: dict[str, str] = json.loads(pq.read_schema(path).metadata[ABOUT])
    return found
