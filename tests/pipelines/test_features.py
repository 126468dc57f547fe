"""What retrieve_features says of each row, on a real Feast store over MinIO."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64

from pipelines.components.retrieve_features.retrieve import Part, retrieve
from pipelines.components.retrieve_features.summary import Summary
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.storage import ObjectRef


def retrieved(
    ids: list[int | None],
    as_of: str,
    folder: Path,
    feature_list: tuple[str, ...] = ("income_v1",),
    where: str = "features",
) -> tuple[pd.DataFrame, Step]:
    """The component's own table for the ids, nulls kept."""
    lines = pa.array(range(2, len(ids) + 2), pa.int64())
    return asked(pa.table({"line": lines, "user_id": pa.array(ids, pa.int64())}), as_of, folder, feature_list, where)


def asked(
    requested: pa.Table,
    as_of: str,
    folder: Path,
    feature_list: tuple[str, ...] = ("income_v1",),
    where: str = "features",
    part: Part | None = None,
) -> tuple[pd.DataFrame, Step]:
    """The component's own table for requested rows."""
    pq.write_table(requested, folder / "requested")
    step = Step("income-batch-inference.retrieve_features", "k", "")
    paths = (str(folder / "requested"), str(folder / "features"))
    retrieve(ObjectRef(where, "feature_store.yaml"), feature_list, as_of, paths, step, part)
    return pq.read_table(paths[1]).to_pandas(types_mapper=pd.ArrowDtype), step


def as_of_join(rows: pd.DataFrame, ids: list[int], as_of: datetime, ttl: timedelta) -> pd.DataFrame:
    """The same question answered by pandas alone: the newest row not after the moment, unless older than the TTL."""
    asked = pd.DataFrame({"user_id": ids, "event_timestamp": pd.Timestamp(as_of).as_unit("us")})
    source = rows.sort_values("event_timestamp", kind="stable")
    return pd.merge_asof(
        asked, source, on="event_timestamp", by="user_id", direction="backward", tolerance=pd.Timedelta(ttl)
    )


@pytest.fixture
def table(demo: ModuleType, people: Any) -> pd.DataFrame:
    """All snapshots, as pandas."""
    frame: pd.DataFrame = demo.features(people).to_pandas()
    return frame


@pytest.mark.parametrize("days", [0, -45, -300, 20, 400])
def test_a_pandas_as_of_join_agrees_on_every_feature(
    days: int, storage_env: Any, feature_bucket: str, demo: ModuleType, table: pd.DataFrame, tmp_path: Path
) -> None:
    as_of = table["event_timestamp"].max().to_pydatetime() + timedelta(days=days - 29, hours=5)
    ids = [*sorted({int(number) for number in table["user_id"]}), demo.NEVER_SEEN]
    np.random.default_rng(days + 1000).shuffle(ids)
    found, _ = retrieved(list(ids), as_of.isoformat(), tmp_path)
    expected = as_of_join(table, ids, as_of, demo.TTL)
    assert found["user_id"].tolist() == ids
    for name in demo.COLUMNS.names[2:]:
        mine, theirs = found[name], expected[name]
        assert mine.isna().tolist() == theirs.isna().tolist(), name
        assert mine.dropna().tolist() == theirs.dropna().tolist(), name
    seen = set(table["user_id"])
    statuses = np.where(
        expected["age"].notna(), "ok", np.where([number in seen for number in ids], "expired", "unknown")
    )
    assert found["status"].tolist() == statuses.tolist()


def test_a_row_counts_from_its_moment_to_the_end_of_its_ttl_both_included(
    storage_env: Any, feature_bucket: str, demo: ModuleType, table: pd.DataFrame, tmp_path: Path
) -> None:
    newest = table[~table["user_id"].duplicated(keep=False)].iloc[0]  # somebody with one row, in the future
    moment, tick = newest["event_timestamp"], pd.Timedelta(1, "us")
    times = [moment - tick, moment, moment + demo.TTL, moment + demo.TTL + tick]
    statuses = [retrieved([int(newest["user_id"])], time.isoformat(), tmp_path)[0]["status"][0] for time in times]
    assert statuses == ["expired", "ok", "ok", "expired"]


def test_the_offset_of_as_of_is_heeded(
    storage_env: Any, feature_bucket: str, demo: ModuleType, table: pd.DataFrame, tmp_path: Path
) -> None:
    newest = table[~table["user_id"].duplicated(keep=False)].iloc[0]
    text = newest["event_timestamp"].tz_convert("Asia/Tokyo").isoformat()
    assert "+09:00" in text
    assert retrieved([int(newest["user_id"])], text, tmp_path)[0]["status"][0] == "ok"


def test_rows_keep_their_order_their_duplicates_and_their_status(
    storage_env: Any, feature_bucket: str, demo: ModuleType, people: Any, tmp_path: Path
) -> None:
    who = {name: int(ids[0]) for name, ids in demo.kinds(people).items()}
    ids = [demo.NEVER_SEEN, who["live"], None, who["past"], who["live"], who["future"], -1]
    found, step = retrieved(ids, people.now.isoformat(), tmp_path)
    assert found["line"].tolist() == list(range(2, 9))
    assert found["status"].tolist() == ["unknown", "ok", "invalid", "expired", "ok", "expired", "unknown"]
    assert found["age"].notna().tolist() == [status == "ok" for status in found["status"]]
    assert step.facts["statuses"] == {"ok": 2, "unknown": 2, "expired": 2, "invalid": 1}
    assert step.facts["coverage"] == 2 / 7


def test_each_row_may_have_its_own_moment_and_columns_of_the_file_pass_by(
    storage_env: Any, feature_bucket: str, demo: ModuleType, table: pd.DataFrame, tmp_path: Path
) -> None:
    newest = table[~table["user_id"].duplicated(keep=False)].iloc[0]
    moment, tick = newest["event_timestamp"], pd.Timedelta(1, "us")
    moments = [moment - tick, moment, None, moment + demo.TTL + tick, moment + demo.TTL]
    columns = {
        "line": pa.array(range(2, 7), pa.int64()),
        "user_id": pa.array([int(newest["user_id"])] * 5),
        "(as_of)": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "campaign": ["a", "b", "c", "d", "e"],
    }
    found, step = asked(pa.table(columns), "2001-01-01T00:00:00Z", tmp_path)
    assert found["status"].tolist() == ["expired", "ok", "invalid", "expired", "ok"]
    assert list(found)[:6] == ["line", "user_id", "status", "(as_of)", "campaign", "age"]  # for feedback
    assert found["campaign"].tolist() == ["a", "b", "c", "d", "e"]
    assert step.facts["own_moments"] is True


def test_a_shard_is_answered_as_the_whole_file_is(
    storage_env: Any, feature_bucket: str, demo: ModuleType, people: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pipelines.requested.GRID", 2)
    ids = [int(ids[0]) for ids in demo.kinds(people).values()] + [None, demo.NEVER_SEEN]
    columns = {"line": pa.array(range(2, len(ids) + 2), pa.int64()), "user_id": pa.array(ids, pa.int64())}
    whole, _ = asked(pa.table(columns), people.now.isoformat(), tmp_path)
    parts = [asked(pa.table(columns), people.now.isoformat(), tmp_path, part=Part(shard, 2))[0] for shard in (1, 2)]
    assert pd.concat(parts, ignore_index=True).equals(whole)


def test_what_feast_was_handed_is_let_go_of(storage_env: Any, feature_bucket: str, people: Any, tmp_path: Path) -> None:
    retrieved([1_000_003, 9_000_001], people.now.isoformat(), tmp_path)
    views = ibis.get_backend().con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert views
    assert [name for (name,) in views if "memtable" in name] == []


def test_a_kept_column_and_a_feature_of_one_name_are_told(
    storage_env: Any, feature_bucket: str, people: Any, tmp_path: Path
) -> None:
    columns = {"line": pa.array([2]), "user_id": pa.array([1]), "age": ["old"]}
    with pytest.raises(PipelineError, match="the file's age and features of income_v1 share the name"):
        asked(pa.table(columns), people.now.isoformat(), tmp_path)


def test_invalid_ids_alone_are_an_answer_too(
    storage_env: Any, feature_bucket: str, people: Any, tmp_path: Path
) -> None:
    found, step = retrieved([None, None], people.now.isoformat(), tmp_path)
    assert found["status"].tolist() == ["invalid", "invalid"]
    assert step.facts["features"]["age"] == {"rows": 0, "missing": 0}


def test_features_may_be_named_one_by_one(
    storage_env: Any, feature_bucket: str, demo: ModuleType, people: Any, tmp_path: Path
) -> None:
    live = int(demo.kinds(people)["live"][0])
    found, _ = retrieved([live], people.now.isoformat(), tmp_path, ("adult:occupation", "adult:age"))
    assert list(found) == ["line", "user_id", "status", "occupation", "age"]


def test_a_user_with_a_missing_value_is_never_scored(
    storage_env: Any, bucket: str, demo: ModuleType, people: Any, tmp_path: Path
) -> None:
    rows = demo.features(demo.Population(now=people.now, size=100)).to_pandas()
    live = demo.kinds(demo.Population(now=people.now, size=100))["live"][:3].tolist()
    rows["age"] = rows["age"].astype("Int64").mask(rows["user_id"] == live[0])
    rows["capital_gain"] = rows["capital_gain"].mask(rows["user_id"] == live[1], float("nan"))
    source = tmp_path / "adult.parquet"
    pq.write_table(pa.Table.from_pandas(rows, schema=demo.COLUMNS, preserve_index=False), source)
    storage_env.client.fput_object(bucket, "adult.parquet", str(source))
    config = tmp_path / "feature_store.yaml"
    config.write_text(demo.feature_store_yaml(bucket))
    storage_env.client.fput_object(bucket, "feature_store.yaml", str(config))
    demo.apply_registry(config.read_text(), f"s3://{bucket}/adult.parquet")
    found, step = retrieved(live, people.now.isoformat(), tmp_path, where=bucket)
    assert found["status"].tolist() == ["unknown", "unknown", "ok"]
    assert step.facts["incomplete"] == 2
    assert step.facts["features"]["age"]["missing"] == 1


@pytest.mark.parametrize(
    ("feature_list", "as_of", "message"),
    [
        pytest.param(("income_v9",), "2026-11-01T12:00:00Z", "income_v9", id="an_unknown_service"),
        pytest.param(("adult:shoe_size",), "2026-11-01T12:00:00Z", "shoe_size", id="an_unknown_feature"),
        pytest.param(("child:age",), "2026-11-01T12:00:00Z", "child", id="an_unknown_view"),
        pytest.param(
            ("adult:age", "income_v1"), "2026-11-01T12:00:00Z", "'income_v1' is neither", id="a_service_and_more"
        ),
        pytest.param(("adult:age", "adult:age"), "2026-11-01T12:00:00Z", "more than once", id="a_feature_twice"),
        pytest.param((), "2026-11-01T12:00:00Z", "feature_list is empty", id="no_feature"),
        pytest.param(("income_v1",), "2026-11-01T12:00:00", "as_of has no offset", id="a_moment_without_offset"),
        pytest.param(
            ("income_v1",),
            "9999-12-31T23:59:59-05:00",
            "as_of is not within the years 1 to 9999",
            id="a_moment_too_late",
        ),
        pytest.param(("income_v1",), "yesterday", "as_of is not an RFC 3339 time", id="no_moment"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    feature_list: tuple[str, ...], as_of: str, message: str, storage_env: Any, feature_bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError) as caught:
        retrieved([1], as_of, tmp_path, feature_list)
    assert message in str(caught.value)


def registered(storage_env: Any, bucket: str, demo: ModuleType, folder: Path, table: pa.Table, **source: Any) -> None:
    """View `v` on a table of its own: features `age`, and `emb`, a list."""
    pq.write_table(table, folder / "v.parquet")
    storage_env.client.fput_object(bucket, "v.parquet", str(folder / "v.parquet"))
    config = folder / "feature_store.yaml"
    config.write_text(demo.feature_store_yaml(bucket))
    storage_env.client.fput_object(bucket, "feature_store.yaml", str(config))
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="v",
        entities=[user],
        schema=[
            Field(name="user_id", dtype=Int64),
            Field(name="age", dtype=Int64),
            Field(name="emb", dtype=Array(Float32)),
        ],
        source=FileSource(
            path=f"s3://{bucket}/v.parquet", timestamp_field="event_timestamp", file_format=ParquetFormat(), **source
        ),
        online=False,
    )
    FeatureStore(fs_yaml_file=config).apply([user, view])


NOW = datetime(2026, 11, 1, tzinfo=UTC)


def test_a_source_with_ids_as_text_is_told(storage_env: Any, bucket: str, demo: ModuleType, tmp_path: Path) -> None:
    table = pa.table({"user_id": ["900017"], "event_timestamp": [NOW], "age": [40]})
    registered(storage_env, bucket, demo, tmp_path, table)
    with pytest.raises(PipelineError, match="the source of view v has user_id as string; it must be int64"):
        retrieved([900017], NOW.isoformat(), tmp_path, ("v:age",), bucket)


def test_a_source_may_have_names_of_its_own_for_id_and_moment(
    storage_env: Any, bucket: str, demo: ModuleType, tmp_path: Path
) -> None:
    table = pa.table({"uid": [7, 8], "at": [NOW, NOW + timedelta(days=1)], "age": [40, 50]})
    mapping = {"uid": "user_id", "at": "event_timestamp"}
    registered(storage_env, bucket, demo, tmp_path, table, field_mapping=mapping)
    found, _ = retrieved([7, 8, 9], NOW.isoformat(), tmp_path, ("v:age",), bucket)
    assert found["status"].tolist() == ["ok", "expired", "unknown"]


def test_a_source_without_its_columns_is_told(storage_env: Any, bucket: str, demo: ModuleType, tmp_path: Path) -> None:
    registered(storage_env, bucket, demo, tmp_path, pa.table({"uid": [7], "age": [40]}))
    with pytest.raises(PipelineError, match=r"the rows of v:age could not be read from s3://.*/v\.parquet: ") as told:
        retrieved([7], NOW.isoformat(), tmp_path, ("v:age",), bucket)
    assert told.value.__cause__ is None  # DuckDB's text may quote a row


def test_a_feature_that_is_a_list_is_refused_before_feast_is_asked(
    storage_env: Any, bucket: str, demo: ModuleType, tmp_path: Path
) -> None:
    registered(storage_env, bucket, demo, tmp_path, pa.table({"nothing": [1]}))
    with pytest.raises(PipelineError, match=r"^v:emb is a list; a feature is one value$"):
        retrieved([7], NOW.isoformat(), tmp_path, ("v:age", "v:emb"), bucket)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_first_and_the_last_moment_can_be_asked_for(
    moment: str, storage_env: Any, feature_bucket: str, demo: ModuleType, people: Any, tmp_path: Path
) -> None:
    live = int(demo.kinds(people)["live"][0])
    assert retrieved([live], moment, tmp_path)[0]["status"].tolist() == ["expired"]


def test_a_summary_tells_of_no_row_by_itself() -> None:
    few, more = Summary(), Summary()
    few.add(pa.table({"number": [777_002.0] * 4, "word": ["mayor"] * 4}))
    assert few.figures() == {
        "number": {"rows": 4, "missing": 0}, "word": {"rows": 4, "missing": 0, "categories": {}, "other": 4}
    }  # fmt: skip
    more.add(pa.table({"number": [1.0, 1, 1, 1, 1, None], "word": ["clerk"] * 5 + ["mayor"]}))
    assert more.figures() == {
        "number": {"rows": 6, "missing": 1, "mean": 1.0, "std": 0.0},
        "word": {"rows": 6, "missing": 0, "categories": {"clerk": 5}, "other": 1},
    }


def test_a_summary_of_parts_is_the_summary_of_the_whole() -> None:
    random = np.random.default_rng(1)
    whole = pa.table({"number": random.normal(1e6, 1, 1000), "word": random.choice(["a", "b"], 1000)})
    parts, once = Summary(), Summary()
    once.add(whole)
    for start in (0, 100, 550):
        parts.add(whole.slice(start, {0: 100, 100: 450, 550: 450}[start]))
    assert parts.figures()["word"] == once.figures()["word"]
    assert parts.figures()["number"] == pytest.approx(once.figures()["number"])
    assert once.figures()["number"]["std"] == pytest.approx(float(np.std(whole["number"].to_numpy())))
