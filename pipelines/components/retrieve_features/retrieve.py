"""Requested rows → the same rows with status and features as of a moment. Called by component.py.

A row is `ok` only when every feature is there. `invalid`: no id, or no moment where the file tells one for each row.
`unknown`: some view never saw the id, at any time. `expired`: seen, but no row within its TTL at the moment, or only
later ones. A row within its TTL that lacks a value is `unknown` too, for what the model needs is not known; the report
counts those apart, as `incomplete`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore

from pipelines.components.retrieve_features.summary import Summary
from pipelines.errors import PipelineError
from pipelines.feature_store import (
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
from pipelines.requested import AS_OF, KEY, LINE, STATUS, between_steps, regrouped, rows_between, span
from pipelines.storage import ObjectRef

CHUNK = 1_000_000  # rows asked of Feast at once, each time a pass over the sources: what bounds the memory
STATUSES = ("ok", "unknown", "expired", "invalid")
OK, UNKNOWN, EXPIRED = range(3)
FEATURES = b"kfp_triggers.features"  #: in the output's schema: a JSON list of which columns are features


@dataclass(frozen=True)
class Part:
    """Which of the requested rows are asked for: shard 1, 2, ... of so many, or, as shard 0, all of them."""

    shard: int = 0
    shards: int = 1


def retrieve(
    config: ObjectRef,
    feature_list: Sequence[str],
    as_of: str,
    paths: tuple[str, str],
    step: Step,
    part: Part | None = None,
) -> None:
    """Reads requested rows from the first path and writes them, with status and features, to the second;

    rows and order stay.
    """
    moment = parse_instant(as_of, "as_of")
    store = open_store(config.bucket, config.key)
    wanted = want(store, feature_list)
    step.inputs += read_datasets(store, wanted)
    schema = pq.read_schema(paths[0])
    _refuse_clashes(schema.names, wanted)
    counts, summary = Counter(dict.fromkeys((*STATUSES, "incomplete"), 0)), Summary()
    with ExitStack() as open_files:
        writer = None
        for requested in regrouped(_rows(Path(paths[0]), part or Part()), CHUNK):
            rows, live = features_of(requested, store, wanted, moment)
            counts.update(_counted(rows.column(STATUS)))
            counts["incomplete"] += int(np.sum(live)) - _counted(rows.column(STATUS)).get("ok", 0)
            summary.add((rows if live.all() else rows.filter(pa.array(live))).select(list(wanted.names)))
            writer = writer or open_files.enter_context(between_steps(Path(paths[1]), rows.schema))
            writer.write_table(rows)
            del requested, rows, live  # a chunk is let go of before the next is asked for
    incomplete, total = counts.pop("incomplete"), counts.total()
    step.facts |= {
        "rows": total,
        "statuses": dict(counts),
        "incomplete": incomplete,
        "coverage": counts["ok"] / max(total, 1),
    }
    step.facts |= {"as_of": moment.isoformat(), "own_moments": AS_OF in schema.names, "features": summary.figures()}


def features_of(requested: pa.Table, store: FeatureStore, wanted: Wanted, as_of: datetime) -> tuple[pa.Table, Any]:
    """One chunk of requested rows with status and features, and which of them have a row within its TTL."""
    entities, places = _entities(requested, as_of)
    features = as_of_features(store, wanted, entities)
    whole = complete(features)
    lacking = np.flatnonzero(~whole)
    seen, live = np.ones(len(whole), bool), np.ones(len(whole), bool)
    seen[lacking], live[lacking] = sightings(store, wanted, entities.take(pa.array(lacking)))
    numbers = np.where(~seen, UNKNOWN, np.where(~live, EXPIRED, np.where(whole, OK, UNKNOWN)))
    status = pa.array(STATUSES).take(pa.array(numbers))
    live = seen & live
    if places is not None:
        status = pc.fill_null(status.take(places), "invalid")
        features = features.take(places)
        live = pc.fill_null(pa.array(live).take(places), False).to_numpy(zero_copy_only=False)
    kept = [name for name in requested.column_names if name not in (LINE, KEY)]  # a row's own moment too: feedback asks
    columns = {LINE: requested.column(LINE), KEY: requested.column(KEY), STATUS: status}
    columns |= {name: requested.column(name) for name in kept}
    columns |= {name: features.column(name) for name in wanted.names}
    return pa.table(columns).replace_schema_metadata({FEATURES: json.dumps(wanted.names)}), live


def _entities(requested: pa.Table, as_of: datetime) -> tuple[pa.Table, pa.Array | None]:
    """What Feast is asked: id and moment of every valid row; and where among them each requested row is, None: there.

    An id that stands twice in the file is asked twice: to find the doubles costs more.
    """
    if AS_OF in requested.column_names:
        entities = pa.table({KEY: requested.column(KEY), TIME: requested.column(AS_OF)})
    else:
        times = pa.repeat(pa.scalar(as_of, pa.timestamp("us", tz="UTC")), requested.num_rows)
        entities = pa.table({KEY: requested.column(KEY), TIME: times})
    if not any(column.null_count for column in entities.columns):
        return entities, None
    valid = pc.and_(pc.is_valid(entities.column(KEY)), pc.is_valid(entities.column(TIME))).combine_chunks()
    numbers = pc.subtract(pc.cumulative_sum(pc.cast(valid, pa.int64())), 1)
    return entities.filter(valid), pc.if_else(valid, numbers, None)


def _rows(path: Path, part: Part) -> Iterator[pa.Table]:
    return rows_between(path, *span(pq.read_metadata(path).num_rows, part.shards, part.shard))


def _refuse_clashes(columns: Sequence[str], wanted: Wanted) -> None:
    if both := [name for name in wanted.names if name in columns]:
        raise PipelineError(f"keep_columns: the file's {', '.join(both)} and features of {wanted.label} share the name")


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column)
    return dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
