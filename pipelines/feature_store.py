"""Feast with its DuckDB offline store, on Parquet in S3-style storage: opened, asked for a moment, never trusted.

Used by the steps that need features: retrieve_features and prepare_data. Feast answers in any order and may lose or
repeat rows, so every question carries a row id and the answer is joined back onto it here.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore
from feast.errors import FeastObjectNotFoundException
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.types import PrimitiveFeastType
from ibis.common.exceptions import IbisError

from pipelines.duckdb_storage import connect_duckdb, frames_let_go, point_feast_at_storage
from pipelines.errors import PipelineError
from pipelines.report import Dataset, stored_object
from pipelines.requested import KEY, OUTPUT
from pipelines.storage import ObjectRef, download, parse_s3, stat

TIME = "event_timestamp"
ROW, ASKED = "row_id", "(asked)"
TAKEN = frozenset({*OUTPUT, TIME, ROW, "income"})  # columns of ours that no feature may be called


@dataclass(frozen=True)
class Wanted:
    """The features a run uses: how to ask Feast for them, their names in order, the views they lie in."""

    request: Any
    names: tuple[str, ...]
    views: tuple[Any, ...]
    label: str


def open_store(bucket: str, config_file: str) -> FeatureStore:
    """Fetches feature_store.yaml and opens the store that it describes; registry and data are where it says."""
    point_feast_at_storage()
    uri = f"s3://{bucket}/{config_file}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "feature_store.yaml")
        download(ObjectRef(bucket, config_file), path)
        try:
            store = FeatureStore(fs_yaml_file=path)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            raise PipelineError(f"Feast cannot open {uri}: {type(error).__name__}: {reason}") from error
    if store.config.offline_store.type != "duckdb":
        raise PipelineError(f"{uri} must set `offline_store: {{type: duckdb}}`: Feast's default drops expired rows")
    connect_duckdb()
    return store


def want(store: FeatureStore, feature_list: Sequence[str]) -> Wanted:
    """What `feature_list` names: `view:feature` entries, or one feature service (a single entry without a colon)."""
    entries = [entry.strip() for entry in feature_list]
    if not entries:
        raise PipelineError("feature_list is empty; name a feature service or features as view:feature")
    try:
        if len(entries) == 1 and ":" not in entries[0]:
            service = store.get_feature_service(entries[0])
            pairs = [(p.name, feature.name) for p in service.feature_view_projections for feature in p.features]
            return _checked(store, service, pairs, entries[0])
        return _checked(store, entries, [_pair(entry) for entry in entries], ",".join(entries))
    except FeastObjectNotFoundException as error:
        raise PipelineError(
            f"feature_list names what Feast does not have in project {store.project!r}: {error}"
        ) from error


def as_of_features(store: FeatureStore, wanted: Wanted, entities: pa.Table) -> pa.Table:
    """For each row of `entities` (user_id, event_timestamp) its features at that moment, null where Feast has none.

    Rows stay in order.
    """
    if not entities.num_rows:  # Feast cannot be asked for nothing, and the caller still needs the columns' types
        nobody = pa.table({KEY: pa.array([0], pa.int64()), TIME: pa.array([0], pa.timestamp("us", tz="UTC"))})
        return as_of_features(store, wanted, nobody).slice(0, 0)
    asked = entities.select([KEY, TIME]).append_column(ROW, pa.array(np.arange(entities.num_rows)))
    with _explained(store, wanted), frames_let_go():
        answer = store.get_historical_features(entity_df=asked.to_pandas(), features=wanted.request).to_arrow()
    places = _places(answer.column(ROW), entities.num_rows)
    return pa.table({name: _taken(answer.column(name), places) for name in wanted.names})


def complete(features: pa.Table) -> Any:
    """Which rows have a value in every column; NaN is none."""
    present = np.ones(features.num_rows, bool)
    for column in features.columns:
        present &= ~pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
    return present


def sightings(store: FeatureStore, wanted: Wanted, entities: pa.Table) -> tuple[Any, Any]:
    """For each row of `entities` (user_id, event_timestamp): was the id ever seen, in every view, and does a row of it

    count at that moment, in every view? Feast answers nulls both for an id it never saw and for one whose rows are too
    old or too new, so the sources are asked too. It is a second pass over them: ask for few.
    """
    seen, live = np.ones(entities.num_rows, bool), np.ones(entities.num_rows, bool)
    for view in wanted.views if entities.num_rows else ():
        with _explained(store, wanted), frames_let_go():
            found = _seen_in(store, view, entities)
        places = found.column(ROW).to_numpy()
        seen_here, live_here = np.zeros(len(seen), bool), np.zeros(len(seen), bool)
        seen_here[places] = True
        live_here[places] = found.column("live").to_numpy()
        seen, live = seen & seen_here, live & live_here
    return seen, live


def read_datasets(store: FeatureStore, wanted: Wanted) -> list[Dataset]:
    """The lineage of a retrieval: the service or views asked, and the objects that hold their rows."""
    names = [wanted.label] if not isinstance(wanted.request, list) else [view.name for view in wanted.views]
    sources = [
        parse_s3(view.batch_source.path) for view in wanted.views if str(view.batch_source.path).startswith("s3://")
    ]
    objects = [
        stored_object(ref, stat(ref))
        for ref in dict.fromkeys(sources)
        if ref.key.endswith(".parquet") and "*" not in ref.key
    ]
    return [Dataset(f"feast:{store.project}", name) for name in names] + objects


@contextmanager
def _explained(store: FeatureStore, wanted: Wanted) -> Iterator[None]:
    """DuckDB's complaints by kind only: their text may quote a row. An id of another type is what ibis complains of."""
    try:
        yield
    except (duckdb.Error, IbisError) as error:
        with suppress(duckdb.Error, IbisError):
            _check_keys(store, wanted)
        sources = ", ".join(str(view.batch_source.path) for view in wanted.views)
        raise PipelineError(
            f"the rows of {wanted.label} could not be read from {sources}: {type(error).__name__}"
        ) from None


def _check_keys(store: FeatureStore, wanted: Wanted) -> None:
    for view in wanted.views:
        table, key, _ = _source(store, view)
        if not (kind := table.schema()[key]).is_integer():
            raise PipelineError(f"the source of view {view.name} has {key} as {kind}; it must be int64") from None


def _pair(entry: str) -> tuple[str, str]:
    view, colon, feature = entry.partition(":")
    if not colon or not view or not feature:
        raise PipelineError(f"feature_list: {entry!r} is neither view:feature nor, standing alone, a feature service")
    return view, feature


def _checked(store: FeatureStore, request: Any, pairs: list[tuple[str, str]], label: str) -> Wanted:
    names = [feature for _, feature in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(f"feature_list has the same feature name more than once: {', '.join(twice)}")
    if taken := sorted(TAKEN.intersection(names)):
        raise PipelineError(f"a feature may not be called {', '.join(taken)}: the output has a column of that name")
    views = [store.get_feature_view(name) for name in dict.fromkeys(view for view, _ in pairs)]
    for view in views:
        keys = [column.name for column in view.entity_columns]
        if keys != [KEY]:
            raise PipelineError(
                f"feature view {view.name!r} is keyed by {', '.join(keys) or 'nothing'}; this pipeline asks by {KEY}"
            )
    known = {(view.name, feature.name): feature.dtype for view in views for feature in view.features}
    if strange := [f"{view}:{feature}" for view, feature in pairs if (view, feature) not in known]:
        raise PipelineError(f"feature_list names what Feast does not have: {', '.join(strange)}")
    if many := [":".join(pair) for pair in pairs if not isinstance(known[pair], PrimitiveFeastType)]:
        raise PipelineError(f"{', '.join(many)} is a list; a feature is one value")
    return Wanted(request, tuple(names), tuple(views), label)


def _places(rows: pa.ChunkedArray, asked: int) -> pa.Array:
    """Where in Feast's answer each asked row lies, null where it was lost; a row answered twice counts once."""
    places = np.full(asked, -1, dtype=np.int64)
    places[rows.to_numpy()] = np.arange(len(rows))
    return pa.array(places, mask=places < 0)


def _taken(column: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """The values at those places. Words by their numbers in a dictionary: to gather short texts takes twice as long."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_string(whole.type):
        return whole.dictionary_encode().take(places).dictionary_decode()
    return whole.take(places)


def _seen_in(store: FeatureStore, view: Any, entities: pa.Table) -> pa.Table:
    """The numbers of those rows whose id a view's source has at any time, each with whether one of its rows counts at

    the row's moment; the same bounds as Feast's join.
    """
    table, key, time_field = _source(store, view)
    numbers = pa.array(np.arange(entities.num_rows))
    asked = ibis.memtable(pa.table({key: entities.column(KEY), ASKED: entities.column(TIME), ROW: numbers}))
    rows = table.inner_join(asked, key)
    time = rows[time_field].cast("timestamp('UTC')")
    moment = rows[ASKED].cast("timestamp('UTC')")
    counts = time <= moment
    if view.ttl:
        counts = counts & (time + ibis.literal(view.ttl) >= moment)
    return rows.mutate(live=counts).group_by(ROW).aggregate(live=lambda table: table.live.any()).to_pyarrow()


def _source(store: FeatureStore, view: Any) -> tuple[Any, str, str]:
    """A view's ids and times as its source has them, unasked yet; and what the source itself calls the two."""
    source = view.batch_source
    own = {name: column for column, name in source.field_mapping.items()}
    key, time = own.get(KEY, KEY), own.get(source.timestamp_field, source.timestamp_field)
    job: Any = DuckDBOfflineStore.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=[key],
        feature_name_columns=[],
        timestamp_field=time,
        created_timestamp_column=None,
    )
    return job.table, key, time
