"""The object that arrived → its requested rows. Called by component.py."""

import tempfile
from pathlib import Path

from pipelines.components.read_data.ids import convert
from pipelines.report import Step, stored_object
from pipelines.storage import ObjectRef, download


def read(ref: ObjectRef, output: str, step: Step) -> None:
    """Fetches the file at the version asked for and writes its requested rows as Parquet to `output`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "ids.csv")
        stored = download(ref, source)
        step.inputs.append(stored_object(ref, stored))
        rows, invalid = convert(source, ref.uri, Path(output))
    step.inputs[-1] = stored_object(ref, stored, rows)
    step.facts |= {"rows": rows, "statuses": {"invalid": invalid}}
