"""What a compiled pipeline says of itself, and what is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import Permanent
from service.packages import KFP_AT_MOST, compiled, digest_of

RECORDED = Path(__file__).parents[2] / "service/templates/packages/hello@v1.yaml"
PYTHON = ["sh", "-ec", "python3 -m kfp.dsl.executor_main"]


def spec(**executors: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        "limit": {"parameterType": "NUMBER_INTEGER", "defaultValue": 1.0, "isOptional": True},
        "share": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5, "isOptional": True},
        "key": {"parameterType": "STRING"},
    }
    return {
        "pipelineInfo": {"name": "p"},
        "root": {"inputDefinitions": {"parameters": inputs}},
        "deploymentSpec": {"executors": {f"exec-{name}": one for name, one in executors.items()}},
    }


def written(*documents: dict[str, Any]) -> bytes:
    return "\n---\n".join(map(json.dumps, documents)).encode()


def test_name_inputs_and_images_are_read() -> None:
    step = {"container": {"image": "python:3.11", "command": PYTHON}}
    found = compiled(written(spec(a=step, b=step, importer={"importer": {}})), "here")
    assert (found.name, found.images, found.containers, found.warnings) == ("p", ["python:3.11"], [], ())
    assert {name: (one.type, one.optional, repr(one.default)) for name, one in found.inputs.items()} == {
        "limit": ("NUMBER_INTEGER", True, "1"),
        "share": ("NUMBER_DOUBLE", True, "0.5"),
        "key": ("STRING", False, "None"),
    }


@pytest.mark.parametrize("command", [["echo"], ["python3", "-m", "kfp.dsl.executor_main"], []], ids=str)
def test_a_step_whose_program_is_in_its_image_is_told_apart(command: list[str]) -> None:
    steps = {
        "a": {"container": {"image": "alpine", "command": command}},
        "b": {"container": {"image": "x"} | {"command": PYTHON}},
    }
    assert compiled(written(spec(**steps)), "here").containers == ["a"]


def test_the_digest_is_of_the_values_and_not_of_the_text() -> None:
    one, platform = spec(), {"platforms": {"kubernetes": {"retries": 2}}}
    text = written(one, platform)
    as_the_server_has_it = (
        json.dumps(one).encode() + b"\n---\n" + json.dumps({"platforms": {"kubernetes": {"retries": 2.0}}}).encode()
    )
    assert compiled(text, "a").digest == compiled(as_the_server_has_it, "b").digest == digest_of([one, platform])
    assert digest_of([one]) == digest_of([one, {}])
    assert len({digest_of([one]), digest_of([one, platform]), digest_of([one | {"schemaVersion": "2.1.0"}])}) == 3


def test_the_example_has_its_digest_on_every_machine() -> None:
    assert compiled(RECORDED.read_bytes(), "hello").digest[:12] == "6b49ff16a528"


def test_more_than_a_server_takes_is_warned_of() -> None:
    found = compiled(written(spec()) + b"#" * KFP_AT_MOST, "here")
    assert "a KFP API server takes no more than 3145728" in found.warnings[0]


WORKFLOW = "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, spec: {}}"
NONE = {
    "": "one mapping, or two",
    "{": "nor YAML",
    "- a": "one mapping, or two",
    "root: 3": "not a compiled KFP v2 pipeline",
    "a: b": "it has no 'root'",
    "{root: {}}": "it has no 'pipelineInfo'",
    "{pipelineInfo: {name: p}, root: {inputDefinitions: {parameters: {a: {}}}}}": "it has no 'parameterType'",
    "{a: b}\n---\n{c: d}\n---\n{e: f}": "one mapping, or two",
    "a: !!python/object/apply:os.system [id]": "nor YAML",
    "{a: &a [1], b: *a}": "aliases",
    "[" * 200_000: "nested deeper than",  # PyYAML by itself ends the process here
    "\x00": "nor YAML",
    WORKFLOW: "an Argo Workflow, as KFP v1 compiled to: compile the pipeline with kfp 2",
    "{apiVersion: v1, kind: Secret}": "a Kubernetes manifest",
    "{name: a, implementation: {container: {}}}": "a KFP v1 component",
    "#" * (16 << 20) + "#": "more than a compiled pipeline may",
}


@pytest.mark.parametrize("text", NONE, ids=range(len(NONE)))
def test_what_is_no_package_is_named_for_what_it_is(text: str) -> None:
    with pytest.raises(Permanent, match=r"^the file ") as caught:
        compiled(text.encode(), "the file")
    assert NONE[text] in caught.value.detail
