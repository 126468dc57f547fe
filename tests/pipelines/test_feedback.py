"""Labels that come later: which prediction each is about, and how good each version's were."""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from pipelines.components.score_labels import predictions as predictions_module
from pipelines.components.score_labels.labels import HIGH, LOW, Labels, read_labels
from pipelines.components.score_labels.match import Matches
from pipelines.components.score_labels.measures import measure
from pipelines.components.score_labels.predictions import address, find
from pipelines.components.score_labels.score import Asked, score
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.storage import ObjectRef
from service.flow.observe import observations_of
from service.settings import load
from service.wiring import rulebook

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def label_table(*rows: tuple[int, float, str]) -> pa.Table:
    users, hours, words = zip(*rows, strict=True)
    times = pa.array([at(hour) for hour in hours], pa.timestamp("us", tz="UTC"))
    return pa.table({"user_id": users, "event_timestamp": times, "income": words})


def content(table: pa.Table, kind: str = "parquet") -> bytes:
    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, out)
    else:
        pa_csv.write_csv(table, out)
    return gzip.compress(out.getvalue()) if kind == "csv.gz" else out.getvalue()


@pytest.fixture
def put(storage_env: Any, bucket: str) -> Callable[[str, bytes], ObjectRef]:
    def put(key: str, body: bytes) -> ObjectRef:
        storage_env.client.put_object(bucket_name=bucket, object_name=key, data=io.BytesIO(body), length=len(body))
        return ObjectRef(bucket, key)

    return put


@pytest.fixture
def predicted(put: Callable[[str, bytes], ObjectRef]) -> Callable[..., ObjectRef]:
    """A file of predictions, as write_data leaves it."""

    def predict(
        key: str, scores: dict[int, float | None], hour: float, version: int = 3, model: str = "m"
    ) -> ObjectRef:
        rows = {
            "user_id": pa.array(list(scores), pa.int64()),
            "probability": pa.array(list(scores.values()), pa.float64()),
        }
        about = {"kfp_triggers.model": f"models:/{model}/{version}", "kfp_triggers.as_of": at(hour).isoformat()}
        return put(f"predictions/{key}.parquet", content(pa.table(rows).replace_schema_metadata(about)))

    return predict


def fed_back(labels: ObjectRef, since: str = "", uri: str = "") -> tuple[Any, Step]:
    step = Step("income-feedback.score_labels", "k", "")
    uri = uri or address(labels.bucket, "predictions")
    return score(labels, Asked(uri, "m", since, at(24).isoformat()), step), step


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
def test_each_version_is_judged_on_the_labels_that_its_predictions_are_about(put, predicted, kind):
    predicted("monday", {1: 0.9, 2: 0.2, 3: 0.8}, hour=0, version=3)
    predicted("tuesday", {4: 0.7, 5: None, 6: 0.4}, hour=2, version=4)
    labels = put(
        "labels/a",
        content(label_table((1, 5, HIGH), (2, 5, LOW), (3, 5, LOW), (4, 5, HIGH), (5, 5, LOW), (9, 5, LOW)), kind),
    )

    found, step = fed_back(labels)

    assert {version: (one["rows"], one["accuracy"]) for version, one in found.measures.items()} == {
        3: (3, pytest.approx(2 / 3)), 4: (1, 1)
    }  # fmt: skip
    assert found.matched == 4
    first, second = step.facts["observations"]
    assert first | {"figures": {}} == {
        "kind": "quality", "model": "m", "version": 3, "as_of": at(24).isoformat(), "subject": labels.uri, "rows": 3,
        "coverage": pytest.approx(4 / 6), "figures": {},
    }  # fmt: skip
    assert second["version"] == 4
    assert [item.name for item in step.inputs] == [
        "labels/a", "predictions/monday.parquet", "predictions/tuesday.parquet", "m/3", "m/4"
    ]  # fmt: skip
    told = json.loads(json.dumps(step.facts, allow_nan=False))
    assert [one.version for one in observations_of(told, "k", at(24))] == [3, 4]


@pytest.mark.parametrize(
    ("predictions", "labels", "judged"),
    [
        pytest.param([(0, 3, 0.9)], [(5, HIGH)], {3: [0.9]}, id="made before"),
        pytest.param([(5, 3, 0.9)], [(5, HIGH)], {3: [0.9]}, id="made at the moment"),
        pytest.param([(6, 3, 0.9)], [(5, HIGH)], {}, id="made after"),
        pytest.param([(0, 3, 0.9), (1, 3, 0.2)], [(5, HIGH)], {3: [0.2]}, id="the newest one counts"),
        pytest.param([(0, 3, 0.9), (1, 4, 0.2)], [(5, HIGH)], {4: [0.2]}, id="of the version in force"),
        pytest.param([(0, 3, 0.9), (0, 4, 0.2)], [(5, HIGH)], {3: [0.9], 4: [0.2]}, id="two versions side by side"),
        pytest.param([(0, 3, 0.9), (3, 4, 0.2)], [(2, HIGH), (5, LOW)], {3: [0.9], 4: [0.2]}, id="two labels"),
        pytest.param([(0, 3, 0.9)], [(5, HIGH), (5, HIGH)], {3: [0.9]}, id="a label that is repeated"),
        pytest.param([(0, 3, 0.9)], [(25, HIGH)], {}, id="a label from the future"),
    ],
)
def test_which_prediction_a_label_is_about(put, predicted, predictions, labels, judged):
    for number, (hour, version, probability) in enumerate(predictions):
        predicted(str(number), {7: probability, 8: 0.5}, hour, version)
    ref = put("labels/a.parquet", content(label_table(*((7, hour, word) for hour, word in labels))))

    found, _ = fed_back(ref)

    assert {version: one["predicted_positive_rate"] for version, one in found.measures.items()} == {
        version: np.mean(np.array(scores) > 0.5) for version, scores in judged.items()
    }
    assert {version: one["rows"] for version, one in found.measures.items()} == {
        version: len(scores) for version, scores in judged.items()
    }


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 2), st.floats(0, 1)), max_size=25),
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_the_match_is_the_plain_rule_whatever_the_chunks(predictions, labels, chunk):
    user, time = (np.array(column, np.int64) for column in zip(*sorted(labels), strict=True))
    matches = Matches(Labels(user, time, np.zeros(len(user), bool), len(user), 0))
    for start in range(0, len(predictions), chunk):
        for version in (1, 2):
            part = [one for one in predictions[start : start + chunk] if one[2] == version]
            rows = [np.array([one[place] for one in part]) for place in (0, 1, 3)]
            matches.add(version, [(rows[0].astype(np.int64), rows[1].astype(np.int64), rows[2].astype(np.float64))])

    expected: dict[int, list[float]] = {}
    for who, when in sorted(labels):
        before = [one for one in predictions if one[0] == who and one[1] <= when]
        newest = max((one[1] for one in before), default=None)
        for version in (1, 2):
            if scores := [one[3] for one in before if one[1] == newest and one[2] == version]:
                expected.setdefault(version, []).append(scores[-1])

    assert {version: scores.tolist() for version, (_, scores) in matches.by_version().items()} == expected


def test_the_figures_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    probability = draw.random(3_000).round(2)
    high = draw.random(3_000) < probability**2

    found = measure(high, probability)

    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(high, probability > 0.5))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(high, probability))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(high, probability))
    assert 0.1 < found["calibration_error"] < 0.25


def test_of_one_class_there_is_no_auc():
    assert "auc" not in measure(np.array([True, True]), np.array([0.0, 1.0]))


def test_only_the_models_own_files_of_the_time_asked_for_are_read(put, predicted):
    predicted("mine", {1: 0.9}, hour=2)
    predicted("too-early", {1: 0.9}, hour=0)
    predicted("too-late", {1: 0.9}, hour=30)
    predicted("others", {1: 0.9}, hour=2, model="other")
    put("predictions/plain.parquet", content(pa.table({"user_id": [1]})))
    put("predictions/broken.parquet", b"no Parquet at all")
    put("predictions/notes.txt", b"-")
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH))))

    _, step = fed_back(ref, since=at(1).isoformat())

    assert step.facts["files"] == {"read": 1, "used": 1, "left": 5}


def test_one_file_of_predictions_may_be_named(put, predicted):
    named = predicted("mine", {1: 0.9}, hour=2)
    predicted("newer", {1: 0.1}, hour=3)
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH))))

    found, _ = fed_back(ref, uri=named.uri)

    assert found.measures[3]["accuracy"] == 1


def test_a_large_file_is_read_in_chunks_and_only_what_is_needed_of_it(put, predicted, monkeypatch):
    scores = {user: user / 5_000 for user in range(5_000)}
    predicted("large", scores, hour=0)
    ref = put("labels/a.parquet", content(label_table((4_000, 5, HIGH), (17, 5, LOW))))
    monkeypatch.setattr(predictions_module, "CHUNK", 100)

    found, _ = fed_back(ref)

    assert (found.matched, found.measures[3]["accuracy"]) == (2, 1)


def test_a_file_with_a_moment_in_each_row_is_matched_row_by_row(put):
    times = pa.array([at(0), at(6), None], pa.timestamp("us", tz="UTC"))
    table = pa.table({"user_id": [1, 2, 3], "probability": [0.9, 0.9, 0.9], "(as_of)": times})
    put("predictions/rows.parquet", content(table.replace_schema_metadata({"kfp_triggers.model": "models:/m/3"})))
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH), (2, 5, HIGH), (3, 5, HIGH))))

    assert fed_back(ref)[0].matched == 1


def test_labels_without_any_prediction_are_no_error_and_observe_nothing(put, bucket):
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH))))

    found, step = fed_back(ref)

    assert (found.matched, step.facts["observations"], step.facts["coverage"]) == (0, [], 0)


def test_of_a_bucket_with_versions_the_lineage_has_the_version(storage_env, put, predicted, bucket):
    from minio.versioningconfig import ENABLED, VersioningConfig

    storage_env.client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))
    file = predicted("a", {1: 0.9}, hour=0)
    wanted = storage_env.client.stat_object(bucket_name=bucket, object_name=file.key).version_id
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH))))

    _, step = fed_back(ref)

    assert step.inputs[1].facets["version"]["datasetVersion"] == wanted


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "cannot be read as labels", id="empty"),
        pytest.param(
            b"user_id,income\n1,<=50K\n", "must have the columns user_id, event_timestamp, income", id="no time"
        ),
        pytest.param(content(pa.table({"user_id": [1]})), "no column event_timestamp, income", id="Parquet, no column"),
        pytest.param(content(label_table((1, 0, HIGH)))[:-9], "cannot be read as labels", id="Parquet, cut off"),
        pytest.param(content(label_table((1, 0, HIGH)), "csv.gz")[:-9], "cannot be read as labels", id="gzip, cut off"),
        pytest.param(
            b"user_id,event_timestamp,income\nsomebody,2026-11-21T08:00:00Z,<=50K\n",
            "user_id must be an integer",
            id="id no number",
        ),
        pytest.param(
            b"user_id,event_timestamp,income\n1,2026-11-21T08:00:00,<=50K\n", "a time such as", id="time without a zone"
        ),
        pytest.param(
            content(label_table((1, 0, "rich"))), "income must be <=50K or >50K; 1 other words", id="other word"
        ),
        pytest.param(content(label_table((1, 0, None))), "income is empty in some row", id="no class"),
        pytest.param(
            content(pa.table({"user_id": [1], "event_timestamp": [5], "income": [LOW]})),
            "timestamp, not int64",
            id="time",
        ),
    ],
)
def test_labels_that_cannot_be_read_end_the_run_and_quote_nobody(put, body, said):
    ref = put("labels/a", body)

    with pytest.raises(PipelineError, match=said) as raised:
        fed_back(ref)
    assert "somebody" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param({"model": ""}, "model_name is empty", id="no model"),
        pytest.param({"as_of": "today"}, "as_of is not an RFC 3339 time", id="no moment"),
        pytest.param({"predictions_uri": "s3://nobody-has-this/"}, "there is no bucket", id="no bucket"),
        pytest.param(
            {"predictions_uri": "s3://{bucket}/labels/a.parquet"}, "is no file of predictions of m", id="other"
        ),
        pytest.param({"predictions_uri": "s3://{bucket}/none.parquet"}, "there is no object", id="no object"),
    ],
)
def test_what_cannot_be_compared_says_why(put, bucket, asked, said):
    ref = put("labels/a.parquet", content(label_table((1, 5, HIGH))))
    asked = {name: value.format(bucket=bucket) for name, value in asked.items()}

    with pytest.raises(PipelineError, match=said):
        score(ref, replace(Asked(address(bucket, ""), "m", "", NOON.isoformat()), **asked), Step("a.b", "k", ""))


def test_predictions_that_are_replaced_while_they_are_read_are_an_error(put, predicted, bucket):
    predicted("a", {1: 0.9}, hour=0)
    (file,), _ = find(address(bucket, "predictions"), "m", (None, at(24)))
    predicted("a", {1: 0.9, 2: 0.8}, hour=0)

    with pytest.raises(PipelineError, match="was replaced meanwhile: PreconditionFailed"):
        list(file.chunks())


def test_labels_of_one_user_and_moment_are_corrected_by_the_row_further_down(put):
    ref = put("labels/a.parquet", content(label_table((1, 5, LOW), (2, 5, LOW), (1, 5, HIGH))))

    labels, _ = read_labels(ref, at(24))

    assert (labels.user.tolist(), labels.high.tolist(), labels.rows) == ([1, 2], [True, False], 3)


def test_a_run_of_the_pipeline_reports_quality_beside_what_the_registry_expects(
    run, put, predicted, bucket, mlflow_uri, tmp_path: Path
):
    import mlflow

    mlflow.set_tracking_uri(mlflow_uri)
    client = mlflow.MlflowClient()
    client.create_registered_model("m")
    made = client.create_run(client.create_experiment("m"))
    client.log_metric(made.info.run_id, "accuracy", 0.9)
    version = client.create_model_version("m", f"runs:/{made.info.run_id}/model", made.info.run_id)
    predicted("a", {1: 0.9, 2: 0.3}, hour=0, version=int(version.version))
    labels = put("labels/a.parquet", content(label_table((1, 5, HIGH), (2, 5, HIGH))))
    params = {
        "labels_uri": labels.uri, "predictions_bucket": bucket, "predictions_prefix": "predictions", "model_name": "m",
        "as_of": at(24).isoformat(), "run_key": "k1", "report_uri": tmp_path.as_uri(),
    }  # fmt: skip

    ended = run("income-feedback", params)

    assert (ended.code, ended.outputs) == (0, {"matched": 2}), ended.log
    report = json.loads((tmp_path / "score_labels.json").read_text())
    (observation,) = report["run"]["facets"]["kfpTriggers_report"]["observations"]
    assert (observation["figures"]["accuracy"], observation["figures"]["expected_accuracy"]) == (0.5, 0.9)


def test_the_shipped_rule_gives_the_pipeline_the_parameters_that_it_has(packages: Path, tmp_path: Path, monkeypatch):
    shipped = Path(__file__).parents[2] / "deploy/rules"
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(tmp_path))
    (tmp_path / "packages").symlink_to(packages)
    names = {"sources.yaml": "sources.yaml", "rules/feedback.yaml": "feedback.yaml"}

    found = rulebook(load()).check({name: (shipped / file).read_text() for name, file in names.items()})

    assert (list(found[1].rules), found[2]) == (["feed-labels-back"], [])
