"""The exit task: it says which step ended a run and why, hides nothing, and is silent when all went well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.components.report_failure.failure import tell
from pipelines.errors import PipelineError
from pipelines.report import Step

NAME = "income-training"


def step(component: str, prefix: str, error: Exception | None = None) -> None:
    """One step that reports, and maybe fails."""
    try:
        with Step(f"{NAME}.{component}", "k1", prefix):
            if error:
                raise error
    except type(error or Exception()):
        pass


def told(folder: Path) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((folder / "report_failure.json").read_text())
    facets = event["run"]["facets"]
    facts = facets["kfpTriggers_report"]
    message = facets.get("errorMessage", {}).get("message", "")
    return {"type": event["eventType"], "message": message, "failed": facts.get("failed"), "done": facts["done"]}


def test_a_failed_step_is_named_with_its_reason(tmp_path: Path) -> None:
    step("checkout_code", tmp_path.as_uri())
    step("prepare_data", tmp_path.as_uri(), PipelineError("there is nothing to train on"))
    tell("FAILED", NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path) == {
        "type": "FAIL",
        "message": "prepare_data: there is nothing to train on",
        "failed": "prepare_data",
        "done": ["checkout_code"],
    }


def test_a_library_s_own_words_stay_in_the_log(tmp_path: Path) -> None:
    step("prepare_data", tmp_path.as_uri(), ValueError("user_id 4242 is odd"))
    tell("FAILED", NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path)["message"] == "prepare_data: ValueError; the run's log has the traceback"


def test_of_two_steps_that_failed_the_first_is_the_cause(tmp_path: Path) -> None:
    for name in ("run_inference-0002", "run_inference-0001"):
        step(name, tmp_path.as_uri(), PipelineError(f"no {name}"))
    tell("FAILED", NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path)["failed"] == "run_inference-0002"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("FAILED", "a step ended without a word: .* Steps that ended well: checkout_code$"),
        ("CANCELLED", "the run was cancelled"),
        ("CANCELED", "the run was cancelled"),
    ],
)
def test_a_run_whose_steps_are_silent_is_told_as_far_as_it_is_known(state: str, message: str, tmp_path: Path) -> None:
    step("checkout_code", tmp_path.as_uri())
    tell(state, NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path)["failed"] == ""
    with pytest.raises(PipelineError, match=message):
        raise PipelineError(told(tmp_path)["message"])


def test_a_run_that_succeeded_leaves_no_report(tmp_path: Path) -> None:
    step("checkout_code", tmp_path.as_uri())
    tell("SUCCEEDED", NAME, "k1", tmp_path.as_uri())
    assert [path.name for path in tmp_path.iterdir()] == ["checkout_code.json"]


def test_a_run_that_succeeds_when_repeated_takes_its_failure_back(tmp_path: Path) -> None:
    step("checkout_code", tmp_path.as_uri(), PipelineError("no such commit"))
    tell("FAILED", NAME, "k1", tmp_path.as_uri())
    step("checkout_code", tmp_path.as_uri())
    tell("SUCCEEDED", NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path) == {"type": "COMPLETE", "message": "", "failed": None, "done": ["checkout_code"]}


def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.json", "[1]"), ("c.json", '{"rows": 3}'), ("d.html", "<p>")):
        (tmp_path / name).write_text(text)
    tell("FAILED", NAME, "k1", tmp_path.as_uri())
    assert told(tmp_path)["done"] == []


def test_no_report_uri_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tell("FAILED", NAME, "k1", "")
    assert list(tmp_path.iterdir()) == []


def test_reports_in_a_bucket_are_read_right_under_the_prefix_only(
    storage_env: Any, bucket: str, tmp_path: Path
) -> None:
    step("checkout_code", f"s3://{bucket}/reports/k1")
    step("prepare_data", f"s3://{bucket}/reports/k1", PipelineError("no labels"))
    step("train_model", f"s3://{bucket}/reports/k1/deeper", PipelineError("another run's"))
    step("train_model", f"s3://{bucket}/reports/k10", PipelineError("another run's"))
    tell("FAILED", NAME, "k1", f"s3://{bucket}/reports/k1/")
    storage_env.client.fget_object(bucket, "reports/k1/report_failure.json", str(tmp_path / "report_failure.json"))
    assert told(tmp_path)["message"] == "prepare_data: no labels"


def test_a_pipeline_that_fails_still_fails_and_its_report_says_why(
    run: Callable[..., Any], model_repository: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    repository, revision = model_repository({"model.py": ""})
    params = {"repository": repository, "revision": revision, "as_of": "yesterday", "run_key": "fails-1"}
    done = run("income-training", params | {"report_uri": tmp_path.as_uri()})
    assert done.code != 0
    assert "prepare-data" in done.log.splitlines()[-1]
    assert told(tmp_path)["message"].startswith("prepare_data: as_of is not an RFC 3339 time")
    assert {path.stem for path in tmp_path.glob("*.json")} - {"checkout_code"} == {"prepare_data", "report_failure"}
    assert "have no effect in the current local runner" not in done.log
