"""Labels of a window with their features: which count, how they are split, what is refused. On a real MinIO."""

import io
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.prepare_data import labels as reading
from pipelines.components.prepare_data import training_set
from pipelines.components.prepare_data.about import about
from pipelines.components.prepare_data.labels import read_labels
from pipelines.components.prepare_data.training_set import prepare, split
from pipelines.components.prepare_data.window import window
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.storage import ObjectRef

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL = window("", "2026-12-01T00:00:00Z")
NOWHERE = ObjectRef("no-bucket", "feature_store.yaml")
Put = Callable[..., str]


def labels(days: list[int], incomes: list[str | None], ids: list[int] | None = None, unit: str = "us") -> pa.Table:
    times = [START + timedelta(days=day) for day in days]
    return pa.table(
        {
            "user_id": pa.array(ids or range(len(days)), pa.int64()),
            "event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")).cast(pa.timestamp(unit, tz="UTC")),
            "income": pa.array(incomes, pa.string()),
        }
    )


WORD = pa.table({"user_id": ["a"], "event_timestamp": [START], "income": ["<=50K"]})
HUGE = labels([0, 1], [">50K"] * 2).set_column(0, "user_id", pa.array([1, 2**63 + 17], pa.uint64()))
NEVER = pa.concat_tables([labels([0], ["<=50K"]), labels([0], ["<=50K"]).set_column(
    1, "event_timestamp", pa.array([None], pa.timestamp("us", tz="UTC")))])  # fmt: skip
NOBODY = pa.table({"user_id": pa.array([None], pa.int64()), "event_timestamp": [START], "income": ["<=50K"]})


@pytest.fixture
def put(storage_env: Any, bucket: str) -> Put:
    """Puts a table into the empty bucket as Parquet and says where it is."""

    def write(table: pa.Table, key: str = "labels.parquet", **how: Any) -> str:
        sink = io.BytesIO()
        pq.write_table(table, sink, **how)
        storage_env.client.put_object(bucket, key, io.BytesIO(sink.getvalue()), sink.tell())
        return f"s3://{bucket}/{key}"

    return write


def test_a_window_leaves_its_start_out_and_takes_its_end(put: Put) -> None:
    chosen = window("2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z")
    rows, _ = read_labels(put(labels([0, 1, 2, 3, 4], ["<=50K"] * 5)), chosen)
    assert rows["user_id"].to_pylist() == [2, 3]


def test_no_since_is_all_of_history(put: Put) -> None:
    rows, _ = read_labels(put(labels([3, 0], ["<=50K"] * 2)), window("", "2026-01-04T00:00:00Z"))
    assert rows["user_id"].to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (("2026-01-04T00:00:00Z", "2026-01-04T00:00:00Z"), "the window is empty"),
        (("2026-01-01", "2026-01-04T00:00:00Z"), "since has no offset"),
        (("", ""), "as_of is not an RFC 3339 time"),
        (("", "2026-01-04T00:00:00Z", -1), "newest is a number of labels"),
        (("", "2026-01-04T00:00:00Z", 0, 1.0), "test_share is a share between 0 and 1"),
        (("", "2026-01-04T00:00:00Z", 0, 0.0), "test_share is a share between 0 and 1"),
    ],
)
def test_a_window_that_is_none_is_refused(params: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        window(*params)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(labels([400], ["<=50K"]), "has no labels after the beginning up to 2026", id="none_in_time"),
        pytest.param(labels([0, 1], ["<=50K", "rich"]), "found also 1 other values$", id="another_class"),
        pytest.param(labels([0, 1], ["<=50K", None]), "1 labels have no income", id="no_class"),
        pytest.param(labels([0], ["<=50K"]).select([0, 2]), "has no column event_timestamp", id="no_time"),
        pytest.param(WORD, "user_id must be an integer and event_timestamp a timestamp", id="a_word_as_id"),
        pytest.param(HUGE, "user_id has ids that do not fit int64$", id="an_id_beyond_64_bits"),
        pytest.param(NEVER, "1 labels have no event_timestamp", id="no_moment"),
        pytest.param(NOBODY, "1 labels have no user_id", id="no_id"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(table: pa.Table, message: str, put: Put) -> None:
    with pytest.raises(PipelineError, match=message) as caught:
        read_labels(put(table), ALL)
    assert str(2**63 + 17) not in "".join(traceback.format_exception(caught.value))  # the run's log has all of it


def test_labels_that_are_no_parquet_are_refused(storage_env: Any, bucket: str) -> None:
    storage_env.client.put_object(bucket, "l.csv", io.BytesIO(b"user_id\n1\n"), 10)
    with pytest.raises(
        PipelineError, match="must be Parquet with the columns user_id, event_timestamp, income"
    ) as told:
        read_labels(f"s3://{bucket}/l.csv", ALL)
    assert told.value.__cause__ is None


def test_a_prefix_is_all_of_its_parquet_objects_and_the_later_label_of_a_moment_counts(put: Put, bucket: str) -> None:
    put(labels([0, 1, 2], [">50K"] * 3), "labels/2026-01.parquet")
    put(labels([1, 3], ["<=50K"] * 2, ids=[1, 9]), "labels/2026-02.parquet")
    put(labels([4], ["<=50K"]), "labels/old/readme.txt")
    put(labels([5], ["<=50K"]), "labels.parquet")
    rows, read = read_labels(f"s3://{bucket}/labels/", ALL)
    assert rows["user_id"].to_pylist() == [0, 1, 2, 9]
    assert rows["income"].to_pylist() == [">50K", "<=50K", ">50K", "<=50K"]
    assert [(one.name, one.statistics["rowCount"]) for one in read] == [
        ("labels/2026-01.parquet", 3),
        ("labels/2026-02.parquet", 2),
    ]
    assert all(one.facets["version"]["datasetVersion"] for one in read)


def test_a_prefix_with_nothing_below_it_is_refused(storage_env: Any, bucket: str) -> None:
    with pytest.raises(PipelineError, match=r"no \.parquet object below"):
        read_labels(f"s3://{bucket}/labels/", ALL)


@pytest.mark.parametrize(("newest", "expected"), [(0, [4, 2, 3, 0, 1]), (3, [3, 0, 1]), (9, [4, 2, 3, 0, 1])])
@pytest.mark.parametrize("chunk", [1, 2, 500])
def test_the_newest_labels_are_the_same_however_the_object_is_cut(
    newest: int, expected: list[int], chunk: int, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHUNK", chunk)
    uri = put(labels([30, 40, 10, 20, 0], ["<=50K"] * 5), row_group_size=2)
    rows, _ = read_labels(uri, window("", "2026-12-01T00:00:00Z", newest))
    assert rows["user_id"].to_pylist() == expected


def test_row_groups_outside_of_the_window_are_not_read(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    iterate = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda file, *sizes, **how: (seen.append(how["row_groups"]), iterate(file, *sizes, **how))[1],
    )
    uri = put(labels(list(range(10)), ["<=50K"] * 10), row_group_size=2)
    rows, _ = read_labels(uri, window("2026-01-03T12:00:00Z", "2026-01-06T00:00:00Z"))
    assert (rows["user_id"].to_pylist(), seen) == ([3, 4, 5], [[1, 2]])


def test_a_label_without_a_moment_is_found_in_a_row_group_outside_of_the_window_too(put: Put) -> None:
    uri = put(pa.concat_tables([NEVER, labels([5, 6], ["<=50K"] * 2)]), row_group_size=2)
    with pytest.raises(PipelineError, match="1 labels have no event_timestamp"):
        read_labels(uri, window("2026-01-03T12:00:00Z", "2026-12-01T00:00:00Z"))


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_a_moment_counts_whatever_its_unit_and_without_a_zone_is_utc(unit: str, put: Put) -> None:
    table = labels([0, 1, 2], ["<=50K"] * 3, unit=unit)
    bare = table.set_column(1, "event_timestamp", table["event_timestamp"].cast(pa.timestamp(unit)))
    chosen = window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert [read_labels(put(one), chosen)[0]["user_id"].to_pylist() for one in (table, bare)] == [[1], [1]]


def test_the_test_set_is_the_newest_share_and_no_moment_lies_on_both_sides() -> None:
    rows = labels([0, 1, 2, 3, 4, 5, 6, 7, 7, 9], ["<=50K", ">50K"] * 5)
    train, test = split(rows)
    assert train["user_id"].to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert test["user_id"].to_pylist() == [7, 8, 9]
    assert split(rows, 0.5)[1]["user_id"].to_pylist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("incomes", "message"),
    [
        (["<=50K"] * 10, "the older 80% .* has no >50K"),
        (["<=50K", ">50K"] * 4 + [">50K"] * 2, "the newest 20% .* has no <=50K"),
    ],
)
def test_one_class_alone_trains_nothing(incomes: list[str | None], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        split(labels(list(range(10)), incomes))


@pytest.mark.parametrize(
    ("days", "message"),
    [
        ([], "no label in the window has all features at its own time"),
        ([3], "only one label .* a larger `newest`"),
        ([3] * 10, "the older 80% of the labels in the window are all of one moment"),
        ([3] * 9 + [4], "the older 80% of the labels in the window are all of one moment"),
    ],
)
def test_a_window_that_cannot_be_split_says_why(days: list[int], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        split(labels(days, (["<=50K", ">50K"] * 5)[: len(days)]))


def test_a_feature_may_have_any_name_but_one_only(put: Put) -> None:
    rows = labels([2, 1, 1], ["<=50K", ">50K", "<=50K"], ids=[1, 2, 2]).append_column("given", pa.array([7, 8, 9]))
    found, _ = read_labels(put(rows), ALL, whole=True)
    assert found["given"].to_pylist() == [9, 7]
    for name in ("user_id", "given"):
        with pytest.raises(PipelineError, match=f"several columns called {name}; keep one"):
            read_labels(put(rows.append_column(name, rows["user_id"])), ALL, whole=True)


def test_without_a_feature_list_the_features_stand_beside_the_labels(put: Put, tmp_path: Path) -> None:
    rows = labels(list(range(10)), ["<=50K", ">50K"] * 5)
    uri = put(rows.append_column("age", pa.array([40, None, *range(42, 50)])))
    step = Step("income-training.prepare_data", "k", "")
    paths = (str(tmp_path / "train"), str(tmp_path / "test"))
    prepare(uri, ALL, (NOWHERE, []), paths, step)
    train, test = (pq.read_table(path) for path in paths)
    assert train.column_names == ["user_id", "event_timestamp", "income", "age"]
    assert (train["age"].to_pylist(), test["age"].to_pylist()) == ([40, 42, 43, 44, 45, 46, 47], [48, 49])
    assert about(paths[0])["features"] == uri
    assert (step.facts["rows"], step.facts["incomplete"]) == (10, 1)


def test_without_a_feature_list_there_must_be_features(put: Put) -> None:
    with pytest.raises(PipelineError, match=r"feature_list is empty, and .* has no columns beside"):
        prepare(put(labels([0, 1], ["<=50K", ">50K"])), ALL, (NOWHERE, []), ("", ""), Step("a.b", "k", ""))


def test_objects_with_other_columns_are_not_mixed(put: Put, bucket: str) -> None:
    put(labels([0], ["<=50K"]).append_column("age", pa.array([40])), "labels/1.parquet")
    put(labels([1], ["<=50K"]).append_column("height", pa.array([1.8])), "labels/2.parquet")
    with pytest.raises(PipelineError, match=r"labels/2.parquet has other columns"):
        read_labels(f"s3://{bucket}/labels/", ALL, whole=True)


def test_feast_may_be_asked_in_parts(
    storage_env: Any, feature_bucket: str, people: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for asked in (training_set.ASKED, 300):
        monkeypatch.setattr(training_set, "ASKED", asked)
        paths = (str(tmp_path / f"train-{asked}"), str(tmp_path / f"test-{asked}"))
        store_at = (ObjectRef(feature_bucket, "feature_store.yaml"), ["income_v1"])
        chosen = window("", people.now.isoformat(), newest=1000)
        prepare(f"s3://{feature_bucket}/labels.parquet", chosen, store_at, paths, Step("a.b", "k", ""))
        made.append([Path(path).read_bytes() for path in paths])
    assert made[0] == made[1]
    assert pq.read_table(tmp_path / "train-300").num_rows > 500
