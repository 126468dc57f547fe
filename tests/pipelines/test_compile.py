"""The packages: the same bytes each time, the parameters of the contract, and no secret in them."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import COMPONENTS, EXAMPLES, compile_components, compile_pipelines
from pipelines.placement import IMAGE, Placement

STRINGS = dict.fromkeys(
    ["entity_df_bucket", "entity_df_filename", "entity_df_version", "entity_df_etag", "feature_store_bucket_name",
     "feature_store_config_file_name", "model_name", "model_type", "output_bucket", "output_file_name", "as_of",
     "run_key", "report_uri"],
    "STRING",
)  # fmt: skip
PARAMETERS = {
    "income-batch-inference": STRINGS | {"feature_list": "LIST", "model_version": "NUMBER_INTEGER"},
    "income-training": dict.fromkeys(
        ["repository", "revision", "feature_store_bucket_name", "feature_store_config_file_name", "labels_uri", "since",
         "as_of", "model_name", "reason", "run_key", "report_uri"],
        "STRING",
    ) | {"feature_list": "LIST"},
}  # fmt: skip
REQUIRED = {
    "income-batch-inference": {
        "entity_df_bucket", "entity_df_filename", "output_file_name", "model_version", "as_of", "run_key"
    },
    "income-training": {"repository", "revision", "as_of", "run_key"},
}  # fmt: skip
STEPS = {
    "income-batch-inference": ["read-data", "retrieve-features", "run-inference", "write-data"],
    "income-training": ["checkout-code", "evaluate-model", "prepare-data", "register-model", "train-model"],
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_two_compilations_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    again = compile_pipelines(tmp_path, Placement(), "v1")
    assert [path.name for path in again] == ["income-batch-inference@v1.yaml", "income-training@v1.yaml"]
    assert all(path.read_bytes() == (packages / path.name).read_bytes() for path in again)


@pytest.mark.parametrize("pipeline", STEPS)
def test_the_parameters_are_the_contract_s(pipeline: str, packages: Path) -> None:
    spec = documents(packages / f"{pipeline}@v1.yaml")[0]
    found = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: facts["parameterType"] for name, facts in found.items()} == PARAMETERS[pipeline]
    assert {name for name, facts in found.items() if not facts.get("isOptional")} == REQUIRED[pipeline]
    assert sorted(spec["root"]["dag"]["tasks"]) == STEPS[pipeline]


@pytest.mark.parametrize("pipeline", STEPS)
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


@pytest.mark.parametrize("pipeline", STEPS)
def test_no_parameter_asks_for_a_secret(pipeline: str) -> None:
    assert not [name for name in PARAMETERS[pipeline] if any(word in name for word in ("secret", "password", "token"))]


def test_every_committed_component_file_is_up_to_date(tmp_path: Path) -> None:
    for path in compile_components(tmp_path):
        committed = COMPONENTS / path.parent.name / path.name
        assert committed.read_text() == path.read_text(), "run: python -m pipelines.compile --components"
        assert documents(path)[0]["deploymentSpec"]["executors"].popitem()[1]["container"]["image"] == IMAGE


def test_every_component_folder_has_its_four_files() -> None:
    folders = [path for path in COMPONENTS.iterdir() if path.is_dir() and path.name != "__pycache__"]
    for folder in folders:
        assert {"__init__.py", "component.py", "component.yaml"} < {path.name for path in folder.iterdir()}
    assert len(folders) == 9


def test_the_container_example_is_a_program_in_the_given_image_with_values_as_arguments(tmp_path: Path) -> None:
    [path] = compile_pipelines(tmp_path, Placement("registry.example.org/tools:3"), "v1", EXAMPLES)
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
