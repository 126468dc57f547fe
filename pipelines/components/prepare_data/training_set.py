"""Labels of a window + the features that each had at that moment → a training and a test set. Called by component.py.

The split is by time: the newest share is the test, and no moment lies on both sides, so that the test is always the
future of the training.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.prepare_data.about import labelled
from pipelines.components.prepare_data.labels import CLASSES, LABEL, TIME, TYPES, read_labels
from pipelines.components.prepare_data.window import Window
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.storage import ObjectRef

if TYPE_CHECKING:
    from feast import FeatureStore

    from pipelines.feature_store import Wanted

ASKED = 500_000  # labels that Feast is asked for at a time: what bounds its memory


def prepare(
    labels_uri: str, chosen: Window, store_at: tuple[ObjectRef, Sequence[str]], paths: tuple[str, str], step: Step
) -> None:
    """Writes the training set to the first path and the test set to the second.

    Without a feature list the features are the columns that stand beside the labels.
    """
    own = not store_at[1]
    labels, read = read_labels(labels_uri, chosen, whole=own)
    step.inputs += read
    usable, features = _own_features(labels, labels_uri) if own else _feast_features(labels, store_at, step)
    step.facts |= {"rows": labels.num_rows, "incomplete": labels.num_rows - usable.num_rows}
    train, test = split(usable, chosen.test_share)
    start = chosen.since or labels.column(TIME)[0].as_py()
    about = {"start": start.isoformat(), "end": chosen.as_of.isoformat(), "features": features}
    for part, path in zip((train, test), paths, strict=True):
        pq.write_table(labelled(part, about), path, compression="zstd")
    step.facts |= {"window": about, "train": _counts(train), "test": _counts(test)}


def split(rows: pa.Table, test_share: float = 0.2) -> tuple[pa.Table, pa.Table]:
    """Everything before a moment, and everything from it on; both need both classes."""
    if not rows.num_rows:
        raise PipelineError("no label in the window has all features at its own time: there is nothing to train on")
    if rows.num_rows == 1:
        raise PipelineError(
            "there is only one label that has all features at its own time, and a split needs two: take a longer "
            "window, or a larger `newest`"
        )
    boundary = rows.column(TIME)[int(rows.num_rows * (1 - test_share))]
    if boundary == rows.column(TIME)[0]:
        raise PipelineError(
            f"the older {1 - test_share:.0%} of the labels in the window are all of one moment, which is not split, so "
            "none is older than the test: take a longer window"
        )
    earlier = pc.less(rows.column(TIME), boundary)
    train, test = rows.filter(earlier), rows.filter(pc.invert(earlier))
    for part, name in ((train, f"the older {1 - test_share:.0%}"), (test, f"the newest {test_share:.0%}")):
        counts = _counts(part)
        if empty := [label for label in CLASSES if not counts[label]]:
            raise PipelineError(
                f"{name} of the labels in the window ({part.num_rows} rows) has no {' and no '.join(empty)}: "
                "take a longer window"
            )
    return train, test


def _feast_features(labels: pa.Table, store_at: tuple[ObjectRef, Sequence[str]], step: Step) -> tuple[pa.Table, str]:
    """The labels that have every feature at their own moment, with these; and what the features are called."""
    from pipelines.feature_store import complete, open_store, read_datasets, want  # noqa: PLC0415 - five seconds

    config, feature_list = store_at
    store = open_store(config.bucket, config.key)
    wanted = want(store, feature_list)
    step.inputs += read_datasets(store, wanted)
    features = _asked(store, wanted, labels)
    table = labels
    for name in wanted.names:
        table = table.append_column(name, features.column(name))
    return table.filter(pa.array(complete(features))), wanted.label


def _asked(store: "FeatureStore", wanted: "Wanted", labels: pa.Table) -> pa.Table:
    from pipelines.feature_store import as_of_features  # noqa: PLC0415 - as above

    starts = range(0, labels.num_rows, ASKED)
    return pa.concat_tables([as_of_features(store, wanted, labels.slice(start, ASKED)) for start in starts])


def _own_features(labels: pa.Table, uri: str) -> tuple[pa.Table, str]:
    """The labels without a gap, with the columns beside them; such features are called what the file is called."""
    if not (names := [name for name in labels.column_names if name not in TYPES]):
        raise PipelineError(f"feature_list is empty, and {uri} has no columns beside {', '.join(TYPES)}")
    table = labels.select([*TYPES, *names])
    gaps = [pc.is_null(table.column(name), nan_is_null=True).to_numpy() for name in names]
    return table.filter(pa.array(~np.logical_or.reduce(gaps))), uri


def _counts(part: pa.Table) -> dict[str, int]:
    labels = part.column(LABEL)
    return {"rows": part.num_rows} | {name: pc.sum(pc.equal(labels, name)).as_py() or 0 for name in CLASSES}
