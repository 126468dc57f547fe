"""Labels of a window + the features that each had at that moment → a training and a test set. Called by component.py.

The split is by time: the newest fifth is the test, and no moment lies on both sides, so that the test is always the
future of the training.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.prepare_data.about import labelled
from pipelines.errors import PipelineError
from pipelines.feature_store import KEY, TIME, as_of_features, complete, open_store, read_datasets, want
from pipelines.instant import parse_instant
from pipelines.report import Step, stored_object
from pipelines.storage import ObjectRef, Stored, download, parse_s3

LABEL, CLASSES = "income", ("<=50K", ">50K")
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Window:
    """Labels with `since < event_timestamp <= as_of`; no `since` is all of history."""

    since: datetime | None
    as_of: datetime


def window(since: str, as_of: str) -> Window:
    """The window that the parameters name."""
    chosen = Window(parse_instant(since, "since") if since else None, parse_instant(as_of, "as_of"))
    if chosen.since and chosen.since >= chosen.as_of:
        raise PipelineError(f"the window is empty: since ({since}) is not before as_of ({as_of})")
    return chosen


def prepare(
    labels_uri: str, chosen: Window, store_at: tuple[ObjectRef, Sequence[str]], paths: tuple[str, str], step: Step
) -> None:
    """Writes the training set to the first path and the test set to the second."""
    labels, ref, stored = read_labels(labels_uri)
    step.inputs.append(stored_object(ref, stored, labels.num_rows))
    labels = in_window(labels, chosen, labels_uri)
    config, feature_list = store_at
    store = open_store(config.bucket, config.key)
    wanted = want(store, feature_list)
    step.inputs += read_datasets(store, wanted)
    features = as_of_features(store, wanted, labels)
    table = labels
    for name in wanted.names:
        table = table.append_column(name, features.column(name))
    usable = table.filter(pa.array(complete(features)))
    step.facts |= {"rows": labels.num_rows, "incomplete": labels.num_rows - usable.num_rows}
    train, test = split(usable)
    start = chosen.since or labels.column(TIME)[0].as_py()
    about = {"start": start.isoformat(), "end": chosen.as_of.isoformat(), "features": wanted.label}
    for part, path in zip((train, test), paths, strict=True):
        pq.write_table(labelled(part, about), path, compression="zstd")
    step.facts |= {"window": about, "train": _counts(train), "test": _counts(test)}


def read_labels(uri: str) -> tuple[pa.Table, ObjectRef, Stored]:
    """The whole table of labels, with its columns and their types checked."""
    ref = parse_s3(uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "labels.parquet")
        stored = download(ref, path)
        try:
            schema = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise PipelineError(f"{uri} must be Parquet with the columns {KEY}, {TIME}, {LABEL}") from error
        if missing := [name for name in (KEY, TIME, LABEL) if name not in schema.names]:
            raise PipelineError(f"{uri} has no column {', '.join(missing)}")
        table = pq.read_table(path, columns=[KEY, TIME, LABEL], partitioning=None)
    return table.cast(_label_schema(table.schema, uri)), ref, stored


def in_window(labels: pa.Table, chosen: Window, uri: str) -> pa.Table:
    """The labels that count, oldest first.

    A label without a class, or with another one, is an error and not a lost row.
    """
    inside = pc.less_equal(labels.column(TIME), _moment(chosen.as_of))
    if chosen.since:
        inside = pc.and_(inside, pc.greater(labels.column(TIME), _moment(chosen.since)))
    rows = labels.filter(inside)
    if not rows.num_rows:
        start = chosen.since.isoformat() if chosen.since else "the beginning"
        raise PipelineError(
            f"{uri} has no labels after {start} up to {chosen.as_of.isoformat()}: there is nothing to train on"
        )
    found = set(pc.unique(rows.column(LABEL)).to_pylist())
    if others := found - set(CLASSES):
        raise PipelineError(
            f"{LABEL} must be {' or '.join(CLASSES)}; found also: {', '.join(sorted(map(repr, others))[:5])}"
        )
    return rows.sort_by([(TIME, "ascending"), (KEY, "ascending"), (LABEL, "ascending")])


def split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Everything before a moment, and everything from it on; both need both classes."""
    if rows.num_rows < 2:
        raise PipelineError("no label in the window has all features at its own time: there is nothing to train on")
    boundary = rows.column(TIME)[int(rows.num_rows * (1 - TEST_SHARE))]
    earlier = pc.less(rows.column(TIME), boundary)
    train, test = rows.filter(earlier), rows.filter(pc.invert(earlier))
    for part, name in ((train, "the older four fifths"), (test, "the newest fifth")):
        counts = _counts(part)
        if empty := [label for label in CLASSES if not counts[label]]:
            raise PipelineError(
                f"{name} of the labels in the window ({part.num_rows} rows) has no {' and no '.join(empty)}: "
                "take a longer window"
            )
    return train, test


def _label_schema(schema: pa.Schema, uri: str) -> pa.Schema:
    """64-bit ids, and moments in UTC whatever their unit;

    a moment without a zone is taken for UTC, as Feast takes it.
    """
    if not pa.types.is_integer(schema.field(KEY).type) or not pa.types.is_timestamp(schema.field(TIME).type):
        raise PipelineError(f"{uri}: {KEY} must be an integer and {TIME} a timestamp")
    return pa.schema([(KEY, pa.int64()), (TIME, pa.timestamp("us", tz="UTC")), (LABEL, pa.string())])


def _moment(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


def _counts(part: pa.Table) -> dict[str, int]:
    labels = part.column(LABEL)
    return {"rows": part.num_rows} | {name: pc.sum(pc.equal(labels, name)).as_py() or 0 for name in CLASSES}
