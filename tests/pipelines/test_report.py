"""Run events: OpenLineage's shape, our names, nothing that must not be told."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipelines.errors import PipelineError
from pipelines.report import Dataset, Step, commit, model_version, stored_object
from pipelines.storage import ObjectRef, Stored

# The part of https://openlineage.io/spec/2-0-2/OpenLineage.json that we use, facets' two obligatory fields included.
FACETS = {
    "type": "object",
    "additionalProperties": {"type": "object", "required": ["_producer", "_schemaURL"]},
}
DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {"facets": FACETS, "inputFacets": FACETS, "outputFacets": FACETS},
    },
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventType", "eventTime", "run", "job", "producer", "schemaURL"],
    "properties": {
        "eventType": {"enum": ["COMPLETE", "FAIL"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": {"type": "object", "required": ["namespace", "name"]},
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
}


def reported(folder: Path, component: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((folder / f"{component}.json").read_text())
    jsonschema.validate(event, RUN_EVENT, format_checker=jsonschema.FormatChecker())
    return event


def uri(dataset: Dataset) -> str:
    return dataset.namespace.rstrip("/") + "/" + dataset.name.lstrip("/")


def test_a_step_that_ends_well_is_complete(tmp_path: Path) -> None:
    with Step("income-training.train_model", "k1", tmp_path.as_uri()) as step:
        step.facts["rows"] = 3
        step.outputs.append(stored_object(ObjectRef("b", "a/b"), Stored(7, "v1"), 3, {"line": "int64"}))
    event = reported(tmp_path, "train_model")
    assert event["eventType"] == "COMPLETE"
    assert event["job"] == {"namespace": "kfp-triggers", "name": "income-training.train_model"}
    assert event["run"]["facets"]["kfpTriggers_report"]["rows"] == 3
    assert event["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert event["outputs"][0]["facets"]["schema"]["fields"] == [{"name": "line", "type": "int64"}]


def test_a_failure_is_reported_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(PipelineError), Step("income-training.train_model", "k1", tmp_path.as_uri()):
        raise PipelineError("no model.py")
    event = reported(tmp_path, "train_model")
    assert event["eventType"] == "FAIL"
    assert event["run"]["facets"]["errorMessage"]["message"] == "no model.py"


def test_a_library_s_message_is_not_told_for_it_may_quote_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="900017"), Step("p.c", "k1", tmp_path.as_uri()):
        raise ValueError("cannot convert 900017")
    assert "900017" not in (tmp_path / "c.json").read_text()


def test_a_repeated_step_has_the_same_run_id(tmp_path: Path) -> None:
    ids = [Step("p.c", key, "").event()["run"]["runId"] for key in ("k1", "k1", "k2")]
    assert ids[0] == ids[1] != ids[2]


def test_each_shard_of_a_step_has_a_report_and_a_run_id_of_its_own(tmp_path: Path) -> None:
    for shard in (0, 1, 12):
        with Step("p.c", "k1", tmp_path.as_uri(), shard) as step:
            step.facts["rows"] = shard
    told = {path.stem: reported(tmp_path, path.stem) for path in tmp_path.iterdir()}
    assert sorted(told) == ["c", "c-0001", "c-0012"]
    assert len({event["run"]["runId"] for event in told.values()}) == 3
    assert {event["job"]["name"] for event in told.values()} == {"p.c"}


def test_no_report_uri_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Step("p.c", "k1", ""):
        pass
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_fails_the_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), Step("p.c", "k1", (tmp_path / "file" / "x").as_uri()):
        pass


def test_a_report_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="first"), Step("p.c", "k1", (tmp_path / "file" / "x").as_uri()):
        raise PipelineError("first")


def test_a_report_stays_under_a_mebibyte(tmp_path: Path) -> None:
    with Step("p.c", "k1", tmp_path.as_uri()) as step:
        step.facts["features"] = {f"f{number}": "x" * 1000 for number in range(2000)}
        step.inputs.append(model_version("m", 3))
    event = reported(tmp_path, "c")
    assert event["run"]["facets"]["kfpTriggers_report"]["truncated"] is True
    assert event["inputs"][0]["name"] == "m/3"


@pytest.mark.parametrize("fact", [date(2026, 12, 1), float("nan"), {"deep": [b"x"]}])
def test_a_fact_that_is_no_json_is_left_out_by_name_and_the_report_is_written(fact: Any, tmp_path: Path) -> None:
    with Step("p.c", "k1", tmp_path.as_uri()) as step:
        step.facts |= {"params": fact, "rows": 3}
    told = reported(tmp_path, "c")["run"]["facets"]["kfpTriggers_report"]
    assert (told["left_out"], told["rows"], "params" in told) == (["params"], 3, False)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (stored_object(ObjectRef("b", "a/b.csv"), Stored(1, "v")), "s3://b/a/b.csv"),
        (model_version("income-classifier", 3), "models:/income-classifier/3"),
        (commit("https://git.example.org/t/m.git", "abc"), "https://git.example.org/t/m.git/commit/abc"),
        (commit("https://user:token@git.example.org/m", "abc"), "https://git.example.org/m/commit/abc"),
        (commit("/srv/model.git", "abc"), "/srv/model.git/commit/abc"),
    ],
)
def test_a_dataset_s_namespace_and_name_make_its_uri(dataset: Dataset, expected: str) -> None:
    assert uri(dataset) == expected
