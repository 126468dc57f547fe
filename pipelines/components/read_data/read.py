"""The object that arrived → its requested rows. Called by component.py."""

import tempfile
from pathlib import Path

from pipelines.components.read_data.columns import Asked
from pipelines.components.read_data.formats import convert
from pipelines.report import Step, stored_object
from pipelines.requested import shard_numbers
from pipelines.storage import ObjectRef, download


def read(ref: ObjectRef, asked: Asked, shards: int, output: str, step: Step) -> list[int]:
    """Fetches the file at the version asked for and writes its requested rows as Parquet to `output`.

    Returns the numbers of the shards that they are to be worked on in.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "ids")
        stored = download(ref, source)
        step.inputs.append(stored_object(ref, stored))
        found = convert(source, ref.uri, Path(output), asked)
    step.inputs[-1] = stored_object(ref, stored, found.rows)
    numbers = shard_numbers(found.rows, shards)
    step.facts |= {"rows": found.rows, "statuses": {"invalid": found.invalid}}
    step.facts |= {"unreadable": {"ids": found.ids, "moments": found.moments}}
    step.facts |= {"format": found.format, "shards": len(numbers)}
    return numbers
