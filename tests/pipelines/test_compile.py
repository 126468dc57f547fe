"""The packages: the same bytes each time, the parameters of the contract, and no secret in them."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import COMPONENTS, EXAMPLES, PIPELINES, compile_components, compile_pipelines
from pipelines.examples import container_component
from pipelines.placement import IMAGE, MINUTES, RETRIES, Placement

STORE = ["feature_store_bucket_name", "feature_store_config_file_name"]
RUN = ["as_of", "run_key", "report_uri"]
PARAMETERS = {
    "income-batch-inference": dict.fromkeys(
        ["entity_df_bucket", "entity_df_filename", "entity_df_version", "entity_df_etag", "as_of_column", "model_name",
         "model_type", "model_alias", "output_bucket", "output_file_name", *STORE, *RUN],
        "STRING",
    ) | dict.fromkeys(["feature_list", "keep_columns"], "LIST")
    | dict.fromkeys(["model_version", "shards"], "NUMBER_INTEGER") | {"keep_features": "BOOLEAN"},
    "income-training": dict.fromkeys(
        ["repository", "revision", "labels_uri", "since", "suite_uri", "model_name", "reason", "metric", "promotion",
         *STORE, *RUN],
        "STRING",
    ) | dict.fromkeys(["feature_list", "slices"], "LIST") | {"newest": "NUMBER_INTEGER"}
    | dict.fromkeys(["test_share", "margin", "slice_margin", "confidence"], "NUMBER_DOUBLE"),
}  # fmt: skip
REQUIRED = {
    "income-batch-inference": {"entity_df_bucket", "entity_df_filename", "output_file_name", "as_of", "run_key"},
    "income-training": {"repository", "revision", "as_of", "run_key"},
}
STEPS = {
    "income-batch-inference": ["read-data", "report-failure", "retrieve-features", "run-inference", "write-data"],
    "income-training": [
        "checkout-code", "compare-models", "evaluate-model", "prepare-data", "register-model", "report-failure",
        "train-model", "validate-data",
    ],
}  # fmt: skip
LONG = {"train-model", "evaluate-model", "validate-data", "deploy-model"}  # what ends one of them would end it again


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """Every step by its name, in whatever group it stands."""
    groups = [spec["root"], *spec["components"].values()]
    found = [item for group in groups for item in group.get("dag", {}).get("tasks", {}).items()]
    return {name: task for name, task in found if "executorLabel" in spec["components"][task["componentRef"]["name"]]}


def test_two_compilations_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    again = compile_pipelines(tmp_path, Placement(retries=0), "v1")
    assert [path.name for path in again] == [f"{name}@v1.yaml" for name in PIPELINES]
    assert all(path.read_bytes() == (packages / path.name).read_bytes() for path in again)


@pytest.mark.parametrize("pipeline", STEPS)
def test_the_parameters_are_the_contract_s(pipeline: str, packages: Path) -> None:
    spec = documents(packages / f"{pipeline}@v1.yaml")[0]
    found = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: facts["parameterType"] for name, facts in found.items()} == PARAMETERS[pipeline]
    assert {name for name, facts in found.items() if not facts.get("isOptional")} == REQUIRED[pipeline]
    assert sorted(tasks(spec)) == STEPS[pipeline]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_steps_carry_the_image_and_the_secret_s_name_and_no_secret(pipeline: str, tmp_path: Path) -> None:
    compile_pipelines(tmp_path, Placement("registry.example.org/components:1", "my-secret"), "v2")
    spec, platform = documents(tmp_path / f"{pipeline}@v2.yaml")
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example.org/components:1"}
    assert not any("env" in executor["container"] for executor in executors.values())
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert placed.keys() == executors.keys()
    for executor in placed.values():
        required, optional = executor["secretAsEnv"]
        assert {required["secretName"], optional["secretName"]} == {"my-secret"}
        assert [key["envVar"] for key in required["keyToEnv"]] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        assert optional["optional"] is True


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_parameter_asks_for_a_secret(pipeline: str, packages: Path) -> None:
    asked = documents(packages / f"{pipeline}@v1.yaml")[0]["root"]["inputDefinitions"]["parameters"]
    assert not [name for name in asked if any(word in name for word in ("secret", "password", "token"))]


@pytest.mark.parametrize("pipeline", STEPS)
def test_whatever_happens_to_a_step_the_exit_task_is_told(pipeline: str, packages: Path) -> None:
    root = documents(packages / f"{pipeline}@v1.yaml")[0]["root"]["dag"]["tasks"]
    assert sorted(root) == ["exit-handler-1", "report-failure"]
    assert root["report-failure"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["report-failure"]["inputs"]["parameters"]["status"]["taskFinalStatus"] == {
        "producerTask": "exit-handler-1"
    }


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_steps_are_repeated_when_lost_end_in_time_and_come_from_a_cache_only_by_content(
    pipeline: str, tmp_path: Path
) -> None:
    compile_pipelines(tmp_path, Placement(memory="2Gi", cpu="500m"), "v1")
    spec, platform = documents(tmp_path / f"{pipeline}@v1.yaml")
    found = tasks(spec)
    assert {name for name, task in found.items() if "retryPolicy" not in task} <= LONG
    assert {task["retryPolicy"]["maxRetryCount"] for task in found.values() if "retryPolicy" in task} <= {RETRIES}
    assert {name for name, task in found.items() if task["cachingOptions"]} <= {"checkout-code"}
    for placed in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert 15 * 60 <= int(placed["activeDeadlineSeconds"]) <= MINUTES * 60
    for executor in spec["deploymentSpec"]["executors"].values():
        sizes = executor["container"]["resources"]
        assert (sizes["resourceCpuRequest"], sizes["resourceMemoryRequest"]) == ("500m", "2Gi")
        assert sizes["resourceMemoryLimit"] == "2Gi"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_package_for_the_local_backend_repeats_nothing_and_asks_for_no_resources(
    pipeline: str, packages: Path
) -> None:
    spec = documents(packages / f"{pipeline}@v1.yaml")[0]
    assert not [name for name, task in tasks(spec).items() if "retryPolicy" in task]
    assert not [name for name, one in spec["deploymentSpec"]["executors"].items() if "resources" in one["container"]]


def test_every_committed_component_file_is_up_to_date(tmp_path: Path) -> None:
    for path in compile_components(tmp_path):
        committed = COMPONENTS / path.parent.name / path.name
        assert committed.read_text() == path.read_text(), "run: python -m pipelines.compile --components"
        assert documents(path)[0]["deploymentSpec"]["executors"].popitem()[1]["container"]["image"] == IMAGE


def test_every_component_folder_has_its_four_files() -> None:
    folders = [path for path in COMPONENTS.iterdir() if path.is_dir() and path.name != "__pycache__"]
    for folder in folders:
        found = {path.name for path in folder.iterdir()}
        assert {"__init__.py", "component.py", "component.yaml", "README.md"} < found, folder.name


def test_the_container_example_is_a_program_in_the_given_image_with_values_as_arguments(tmp_path: Path) -> None:
    example = {container_component.NAME: EXAMPLES[container_component.NAME]}
    [path] = compile_pipelines(tmp_path, Placement("registry.example.org/tools:3"), "v1", example)
    [spec] = documents(path)
    container = spec["deploymentSpec"]["executors"]["exec-checksum"]["container"]
    assert container["image"] == "registry.example.org/tools:3"
    assert "$." not in " ".join(container["command"])
    values = {
        "{{$.inputs.parameters['text']}}": "a 'b' $(c)\n",
        "{{$.outputs.parameters['digest'].output_file}}": "out/d",
    }
    argv = [*container["command"], *(values[one] for one in container["args"])]
    subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "out/d").read_text().strip() == hashlib.sha256(b"a 'b' $(c)\n").hexdigest()
