"""Requested rows → the same rows with status and features as of a moment. Called by component.py.

A row is `ok` only when every feature is there. `invalid`: no id. `unknown`: some view never saw the id, at any time.
`expired`: seen, but no row within its TTL at `as_of`, or only later ones. A row within its TTL that lacks a value is
`unknown` too, for what the model needs is not known; the report counts those apart, as `incomplete`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore

from pipelines.components.retrieve_features.summary import Summary
from pipelines.feature_store import (
    KEY,
    TIME,
    Wanted,
    as_of_features,
    complete,
    open_store,
    read_datasets,
    sightings,
    want,
)
from pipelines.instant import parse_instant
from pipelines.report import Step
from pipelines.storage import ObjectRef

CHUNK = 1_000_000  # rows asked of Feast at once: what bounds the memory
STATUSES = ("ok", "unknown", "expired", "invalid")


def retrieve(config: ObjectRef, feature_list: Sequence[str], as_of: str, paths: tuple[str, str], step: Step) -> None:
    """Reads requested rows from the first path and writes them, with status and features, to the second;

    rows and order stay.
    """
    moment = parse_instant(as_of, "as_of")
    store = open_store(config.bucket, config.key)
    wanted = want(store, feature_list)
    step.inputs += read_datasets(store, wanted)
    counts, summary = Counter(dict.fromkeys((*STATUSES, "incomplete"), 0)), Summary()
    with ExitStack() as open_files:
        writer = None
        for requested in _chunks(Path(paths[0])):
            rows, live = features_of(requested, store, wanted, moment)
            counts.update(rows.column("status").to_pylist())
            counts["incomplete"] += int(np.sum(live)) - _ok(rows)
            summary.add(rows.filter(pa.array(live)).select(list(wanted.names)))
            writer = writer or open_files.enter_context(pq.ParquetWriter(paths[1], rows.schema, compression="zstd"))
            writer.write_table(rows)
    incomplete, total = counts.pop("incomplete"), counts.total()
    step.facts |= {
        "rows": total,
        "statuses": dict(counts),
        "incomplete": incomplete,
        "coverage": counts["ok"] / max(total, 1),
    }
    step.facts |= {"as_of": moment.isoformat(), "features": summary.figures()}


def features_of(requested: pa.Table, store: FeatureStore, wanted: Wanted, as_of: datetime) -> tuple[pa.Table, Any]:
    """One chunk of requested rows with status and features, and which of them have a row within its TTL."""
    given = requested.column(KEY).combine_chunks()
    ids = pc.unique(given.drop_null()).sort()
    places = pc.index_in(given, value_set=ids)
    times = pa.array([as_of], pa.timestamp("us", tz="UTC")).take(pa.array(np.zeros(len(ids), np.int64)))
    features = as_of_features(store, wanted, pa.table({KEY: ids, TIME: times}))
    seen, live = sightings(store, wanted, ids, as_of)
    status = np.where(~seen, "unknown", np.where(~live, "expired", np.where(complete(features), "ok", "unknown")))
    statuses = pc.fill_null(pa.array(status, pa.string()).take(places), "invalid")
    rows = requested.append_column("status", statuses)
    for name in wanted.names:
        rows = rows.append_column(name, features.column(name).take(places))
    return rows, pc.fill_null(pa.array(seen & live).take(places), False).to_numpy(zero_copy_only=False)


def _ok(rows: pa.Table) -> int:
    return pc.sum(pc.equal(rows.column("status"), "ok")).as_py() or 0


def _chunks(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(CHUNK):
            yield pa.Table.from_batches([batch])
