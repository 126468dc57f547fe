"""The compiled packages through kfp.local, each run in a process of its own, on real MinIO, Feast and MLflow."""

import csv
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

Run = Callable[[str, dict[str, Any]], Any]
ROOT = Path(__file__).parents[2]
OUTPUT = pa.schema(
    [
        ("line", pa.int64()),
        ("user_id", pa.int64()),
        ("Predicted_Income_Class", pa.string()),
        ("probability", pa.float64()),
        ("status", pa.string()),
    ]
)


TRAINING = [
    "checkout_code", "compare_models", "evaluate_model", "prepare_data", "register_model", "train_model",
    "validate_data",
]  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A first model, trained once for all tests here."""

    params: dict[str, Any]
    reports: Path


def put(storage: Any, bucket: str, key: str, content: bytes) -> Any:
    return storage.client.put_object(bucket, key, io.BytesIO(content), len(content))


def events(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def registered(reports: Path) -> int:
    """The version that a training says it registered."""
    return int(events(reports)["register_model"]["outputs"][0]["name"].rpartition("/")[2])


@pytest.fixture(scope="module")
def trained(
    run: Run, feature_bucket: str, people: Any, model_repository: Any, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """The demo's first model, registered by a run of `income-training`."""
    files = {path.name: path.read_text() for path in (ROOT / "deploy/demo/model_repo/v1").iterdir() if path.is_file()}
    repository, revision = model_repository(files)
    reports = tmp_path_factory.mktemp("reports")
    params = {
        "repository": repository,
        "revision": revision,
        "as_of": people.now.isoformat(),
        "reason": "first",
        "run_key": "train-1",
        "report_uri": reports.as_uri(),
    }
    done = run("income-training", params)
    assert done.code == 0, done.log
    return Trained(params, reports)


def scoring(people: Any, bucket: str, **more: Any) -> dict[str, Any]:
    return {
        "entity_df_bucket": bucket,
        "entity_df_filename": "incoming/ids.csv",
        "output_bucket": bucket,
        "output_file_name": "out/ids.parquet",
        "model_version": 1,
        "as_of": people.now.isoformat(),
        "run_key": "score-1",
    } | more


def test_training_registers_a_champion_with_its_lineage(trained: Trained, mlflow_uri: str) -> None:
    version = MlflowClient(mlflow_uri).get_model_version_by_alias("income-classifier", "champion")
    assert version.version == "1"
    assert version.tags["commit"] == trained.params["revision"]
    assert version.tags["reason"] == "first"
    assert version.tags["feature_service"] == "income_v1"
    told = events(trained.reports)
    assert sorted(told) == TRAINING
    assert {event["eventType"] for event in told.values()} == {"COMPLETE"}
    assert told["register_model"]["outputs"][0]["name"] == "income-classifier/1"
    assert told["checkout_code"]["inputs"][0]["name"] == f"commit/{trained.params['revision']}"
    assert told["evaluate_model"]["run"]["facets"]["kfpTriggers_report"]["metrics"]["auc"] > 0.8


def test_a_second_execution_of_a_training_leaves_one_version(run: Run, trained: Trained, mlflow_uri: str) -> None:
    done = run("income-training", trained.params)
    assert done.code == 0, done.log
    versions = MlflowClient(mlflow_uri).search_model_versions("name = 'income-classifier'")
    assert [version.version for version in versions if version.tags["run_key"] == "train-1"] == ["1"]


def test_scoring_answers_every_requested_row_in_order(
    run: Run, trained: Trained, demo: ModuleType, people: Any, minio: Any, bucket: str, tmp_path: Path
) -> None:
    content = demo.requested_csv(people, 500)
    etag = put(minio, bucket, "incoming/ids.csv", content).etag
    params = scoring(people, bucket, entity_df_etag=etag, report_uri=f"s3://{bucket}/reports/score-1")
    done = run("income-batch-inference", params)
    assert done.code == 0, done.log

    minio.client.fget_object(bucket, "out/ids.parquet", str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out")
    assert table.schema.remove_metadata() == OUTPUT
    lines = content.decode("utf-8-sig").split("\r\n")
    wanted = [(number, line.partition(",")[0]) for number, line in enumerate(lines, 1) if number > 1 and line]
    assert table["line"].to_pylist() == [number for number, _ in wanted]
    assert table["user_id"].to_pylist() == [int(text) if text.isdigit() else None for _, text in wanted]
    kinds = {kind: set(ids.tolist()) for kind, ids in demo.kinds(people).items()}
    for row in table.to_pylist():
        assert row["status"] == expected_status(row["user_id"], kinds)
        scored = (row["Predicted_Income_Class"] is not None, row["probability"] is not None)
        assert scored == (row["status"] == "ok",) * 2
        if row["status"] == "ok":
            assert row["Predicted_Income_Class"] == (">50K" if row["probability"] > 0.5 else "<=50K")
    assert minio.client.stat_object(bucket, "out/ids.parquet").metadata["x-amz-meta-run-key"] == "score-1"
    ids = {text for _, text in wanted}
    check_reports(minio, bucket, tmp_path, ids)
    assert not any(number in done.log for number in ids)


def expected_status(user_id: int | None, kinds: dict[str, set[int]]) -> str:
    if user_id is None:
        return "invalid"
    if user_id in kinds["live"]:
        return "ok"
    return "expired" if user_id in kinds["past"] | kinds["future"] else "unknown"


def facts_of(event: dict[str, Any]) -> dict[str, Any]:
    return dict(event["run"]["facets"]["kfpTriggers_report"])


def check_reports(minio: Any, bucket: str, folder: Path, ids: set[str]) -> None:
    for item in minio.client.list_objects(bucket, prefix="reports/score-1/"):
        minio.client.fget_object(bucket, item.object_name, str(folder / "reports" / Path(item.object_name).name))
    told = events(folder / "reports")
    assert sorted(told) == ["read_data", "retrieve_features", "run_inference", "write_data"]
    facts = facts_of(told["write_data"])
    assert (facts["rows"], sum(facts["statuses"].values())) == (500, 500)
    assert facts["coverage"] == facts["statuses"]["ok"] / 500
    uris = [(told[step][side][0]["namespace"], told[step][side][0]["name"]) for step, side in LINEAGE]
    assert uris == [
        (f"s3://{bucket}", "incoming/ids.csv"),
        ("feast:income", "income_v1"),
        ("models:", "income-classifier/1"),
        (f"s3://{bucket}", "out/ids.parquet"),
    ]
    text = json.dumps(told)
    assert not any(number in text for number in ids)


LINEAGE = [
    ("read_data", "inputs"),
    ("retrieve_features", "inputs"),
    ("run_inference", "inputs"),
    ("write_data", "outputs"),
]


def test_three_shards_give_the_same_bytes_as_one_and_the_same_drift(
    run: Run, trained: Trained, demo: ModuleType, people: Any, minio: Any, bucket: str, tmp_path: Path
) -> None:
    rows = demo.requested_csv(people, 500).splitlines(keepends=True)
    many = b"".join([*rows, *rows[1:] * 240])  # a shard is no smaller than 50,000 rows
    put(minio, bucket, "incoming/ids.csv.gz", gzip.compress(many))
    asked = {"entity_df_filename": "incoming/ids.csv.gz", "keep_columns": ["*"], "keep_features": True}
    for shards in (1, 3):
        more = {"shards": shards, "output_file_name": f"out/{shards}", "report_uri": (tmp_path / f"{shards}").as_uri()}
        done = run("income-batch-inference", scoring(people, bucket, **asked, **more))
        assert done.code == 0, done.log
        minio.client.fget_object(bucket, f"out/{shards}", str(tmp_path / f"{shards}.parquet"))
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "3.parquet").read_bytes()
    table = pq.read_table(tmp_path / "1.parquet")
    assert table.column_names == [*OUTPUT.names, "campaign", *demo.COLUMNS.names[2:]]
    assert set(table["campaign"].to_pylist()) == {"autumn"}
    whole, cut = (events(tmp_path / name) for name in ("1", "3"))
    assert sorted(cut) == ["read_data", *SHARDS, "write_data"]
    assert sum(facts_of(cut[name])["rows"] for name in SHARDS[:3]) == 120_500
    drift = [facts_of(told["write_data"])["observation"] for told in (whole, cut)]
    assert drift[0] | {"subject": ""} == drift[1] | {"subject": ""}
    assert (drift[0]["model"], drift[0]["version"], drift[0]["rows"]) == ("income-classifier", 1, 120_500)
    assert drift[0]["columns"]["age"]["psi"] < 0.25


SHARDS = [f"{step}-000{shard}" for step in ("retrieve_features", "run_inference") for shard in (1, 2, 3)]


def test_a_second_execution_of_a_scoring_changes_nothing(
    run: Run, trained: Trained, demo: ModuleType, people: Any, minio: Any, bucket: str
) -> None:
    put(minio, bucket, "incoming/ids.csv", demo.requested_csv(people, 100))
    seen = []
    for _ in range(2):
        done = run("income-batch-inference", scoring(people, bucket))
        assert done.code == 0, done.log
        found = minio.client.stat_object(bucket, "out/ids.parquet")
        with minio.client.get_object(bucket, "out/ids.parquet") as response:
            seen.append((found.last_modified, hashlib.sha256(response.read()).hexdigest()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("content", "params", "component", "message"),
    [
        pytest.param(b"", {}, "read_data", "is empty", id="an_empty_file"),
        pytest.param(b"id\n7\n", {}, "read_data", "has no column user_id", id="no_user_id"),
        pytest.param(b"user_id\n7\n", {"entity_df_etag": "0" * 32}, "read_data", "was replaced", id="a_replaced_file"),
        pytest.param(b"user_id\n7\n", {"entity_df_filename": "x.csv"}, "read_data", "there is no object", id="no_file"),
        pytest.param(
            b"user_id\n7\n", {"feature_list": ["adult:age"]}, "run_inference",
            "needs workclass (string), which feature_list lacks", id="another_feature_list",
        ),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_done_says_why_and_leaves_no_output(
    content: bytes, params: dict[str, Any], component: str, message: str, run: Run, trained: Trained, people: Any,
    minio: Any, bucket: str, tmp_path: Path,
) -> None:  # fmt: skip
    put(minio, bucket, "incoming/ids.csv", content)
    done = run("income-batch-inference", scoring(people, bucket, report_uri=tmp_path.as_uri(), **params))
    assert done.code != 0
    told = events(tmp_path)[component]
    assert told["eventType"] == "FAIL"
    assert message in told["run"]["facets"]["errorMessage"]["message"]
    assert [item.object_name for item in minio.client.list_objects(bucket, prefix="out/", recursive=True)] == []


def test_the_examples_by_hand_follow_one_another(
    trained: Trained, minio: Any, mlflow_uri: str, feature_bucket: str, tmp_path: Path
) -> None:
    """Each component's README shows it without KFP, on what the example before it left."""
    minio.client.make_bucket("predictions")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": mlflow_uri}
    for name in ("read_data", "retrieve_features", "run_inference", "write_data"):
        readme = (ROOT / "pipelines/components" / name / "README.md").read_text()
        [example] = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)
        done = subprocess.run(
            ["sh", "-e", "-c", example], cwd=tmp_path, env=os.environ | minio.environment | more, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert minio.client.stat_object("predictions", "by-hand.parquet").size


def test_a_later_training_leaves_the_champion_where_it_is(
    run: Run, trained: Trained, model_repository: Any, mlflow_uri: str, tmp_path: Path
) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "deploy/demo/model_repo/v2").iterdir() if path.is_file()}
    repository, revision = model_repository(files)
    more = {"repository": repository, "revision": revision, "run_key": "train-2", "report_uri": tmp_path.as_uri()}
    done = run("income-training", trained.params | more)
    assert done.code == 0, done.log
    assert registered(tmp_path) > 1
    assert MlflowClient(mlflow_uri).get_model_version_by_alias("income-classifier", "champion").version == "1"


def test_a_training_on_nothing_fails_and_registers_nothing(
    run: Run, trained: Trained, mlflow_uri: str, tmp_path: Path
) -> None:
    more = {"as_of": "2001-01-01T00:00:00Z", "run_key": "train-nothing", "report_uri": tmp_path.as_uri()}
    done = run("income-training", trained.params | more)
    assert done.code != 0
    message = events(tmp_path)["prepare_data"]["run"]["facets"]["errorMessage"]["message"]
    assert "there is nothing to train on" in message
    versions = MlflowClient(mlflow_uri).search_model_versions("name = 'income-classifier'")
    assert not [version for version in versions if version.tags["run_key"] == "train-nothing"]


def test_the_demo_s_file_holds_what_it_promises(demo: ModuleType, people: Any) -> None:
    content = demo.requested_csv(people, 500)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert len(rows) == 500
    assert content.startswith(b"\xef\xbb\xbf")
    assert b"\r\n\r\n" in content
    numbers = [row["user_id"] for row in rows]
    assert len(set(numbers)) == 490
    assert [number for number in numbers if not number.isdigit()] == ["not-a-number"]
