"""What the local backend can run, read from a folder of compiled pipelines; and what it reads out of a run's log."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import localsteps
from service.errors import Permanent
from service.localpackages import Packages


def package(folder: Path, reference: str, *, mark: str = "", **inputs: dict[str, Any]) -> Path:
    path = folder / f"{reference}.yaml"
    root = {"inputDefinitions": {"parameters": inputs}}
    path.write_text(yaml.safe_dump({"pipelineInfo": {"name": "p"}, "root": root, "mark": mark}))
    return path


def test_inputs_come_with_type_default_and_whether_they_may_be_left_out(tmp_path: Path) -> None:
    package(
        tmp_path,
        "p@v1",
        limit={"parameterType": "NUMBER_INTEGER", "defaultValue": 1.0, "isOptional": True},
        share={"parameterType": "NUMBER_DOUBLE", "defaultValue": 1.0, "isOptional": True},
        key={"parameterType": "STRING"},
    )
    inputs = Packages(tmp_path).pipeline("p@v1").inputs
    assert repr(inputs["limit"].default) == "1"
    assert repr(inputs["share"].default) == "1.0"
    assert (inputs["key"].type, inputs["key"].optional) == ("STRING", False)


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        (["v1.9", "v1.10"], "v1.10"),
        (["v2rc1", "v2"], "v2"),
        (["v1", "sha-aaaa"], "v1"),
        (["sha-bbbb", "sha-aaaa"], "sha-aaaa"),  # the last one that was written
    ],
)
def test_latest_is_the_greatest_version_number_or_else_the_youngest_file(
    tmp_path: Path, versions: list[str], latest: str
) -> None:
    for age, version in enumerate(versions):
        os.utime(package(tmp_path, f"p@{version}"), (age, age))
    package(tmp_path, "other@v9")
    assert Packages(tmp_path).pipeline("p@latest").version == latest
    assert [one.version for one in Packages(tmp_path).versions("p")] == [latest, *sorted(set(versions) - {latest})]
    assert [one.pipeline for one in Packages(tmp_path).versions()] == ["other", *["p"] * len(versions)]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    package(tmp_path, "p@v1")
    packages = Packages(tmp_path)
    before = packages.pipeline("p@v1")
    assert packages.pipeline("p@v1") == before
    package(tmp_path, "p@v1", mark="longer")
    assert packages.pipeline("p@v1").digest != before.digest


def test_a_missing_package_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    package(tmp_path, "p@v1")
    with pytest.raises(Permanent, match=r"no package p@v2 in .*; there is p@v1"):
        Packages(tmp_path).pipeline("p@v2")
    with pytest.raises(Permanent, match="q@latest"):
        Packages(tmp_path).pipeline("q@latest")
    with pytest.raises(Permanent, match="none at all"):
        Packages(tmp_path / "nowhere").pipeline("p@v1")


@pytest.mark.parametrize("reference", ["p", "../p@v1", "p@../v1", "/etc/p@v1", "p@v1@v2", "", "*@v1"])
def test_a_reference_is_no_path(tmp_path: Path, reference: str) -> None:
    with pytest.raises(Permanent, match="name@version"):
        Packages(tmp_path).pipeline(reference)


def test_a_file_that_is_no_package_is_named_and_left_out_of_the_list(tmp_path: Path) -> None:
    package(tmp_path, "p@v1")
    (tmp_path / "q@v1.yaml").write_text("root: 3")
    with pytest.raises(Permanent, match=r"q@v1\.yaml is not a compiled KFP v2 pipeline"):
        Packages(tmp_path).pipeline("q@v1")
    assert [one.pipeline for one in Packages(tmp_path).versions()] == ["p"]
    assert [(one.what, one.good) for one in Packages(tmp_path).check()] == [("packages", True), ("package q@v1", False)]


def test_a_version_is_written_once(tmp_path: Path) -> None:
    content = package(tmp_path, "p@v1").read_bytes()
    packages = Packages(tmp_path / "made")
    assert packages.push("p", "v1", content) is True
    assert packages.push("p", "v1", b"# another text\n" + content) is False
    with pytest.raises(Permanent, match="p@v1 is there with other content: give changed content a new version"):
        packages.push("p", "v1", content.replace(b"mark: ''", b"mark: x"))
    assert (tmp_path / "made/p@v1.yaml").read_bytes() == content
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["p@v1.yaml"]


@pytest.mark.parametrize(("name", "version"), [("../p", "v1"), ("p", "../v1"), ("p", "latest"), ("p@v1", "v1")])
def test_a_version_that_is_no_name_is_not_written(tmp_path: Path, name: str, version: str) -> None:
    content = package(tmp_path, "p@v1").read_bytes()
    with pytest.raises(Permanent):
        Packages(tmp_path / "made").push(name, version, content)
    assert not (tmp_path / "made").exists()


LOG = """\
09:00:00.000 - INFO - Executing task \x1b[96m'{task}'\x1b[0m
09:00:00.000 - INFO - Streamed logs:

    [KFP Executor 2026-11-21 09:00:00,000 INFO]: Looking for component
{said}


09:00:01.000 - ERROR - Task \x1b[96m'{task}'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""
CHAINED = """\
    Traceback (most recent call last):
      File "a.py", line 1, in <module>
    KeyError: 'x'

    The above exception was the direct cause of the following exception:

    Traceback (most recent call last):
      File "a.py", line 3, in <module>
        raise BadInput("no column
    pipelines.errors.BadInput: the file has no column user_id
    (it has: id, name)"""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (CHAINED, "pipelines.errors.BadInput: the file has no column user_id (it has: id, name)"),
        ("    only a word", "only a word"),
        ("", "the step ended without a word"),
    ],
)
def test_the_reason_of_a_failed_task_is_its_last_exception_or_word(said: str, reason: str) -> None:
    log = LOG.format(task="other", said="    ValueError: not this one") + LOG.format(task="score", said=said)
    inner = "Inner task failed: \x1b[96m'score-2'\x1b[0m inside \x1b[96m'loop'\x1b[0m."
    problem = f"Pipeline 'p' finished with status FAILURE. {inner}"
    assert localsteps.explain(log, problem) == ("score-2", reason)


def test_a_failure_outside_any_task_is_the_problem_itself() -> None:
    assert localsteps.explain("nothing ran", "p() got an unexpected keyword") == ("", "p() got an unexpected keyword")


def test_outputs_fit_into_json_and_a_row() -> None:
    odd = {"parameters": {"a": float("inf"), "b": [float("nan"), 1.5]}, "artifacts": {}}
    assert localsteps.bounded(odd)["parameters"] == {"a": None, "b": [None, 1.5]}
    big = {"parameters": {"small": 1, "big": "x" * 300_000}, "artifacts": {"t/m": {"uri": "u", "metadata": {"a": 1}}}}
    kept = localsteps.bounded(big)
    assert kept == {"truncated": True, "parameters": {"small": 1}, "artifacts": {"t/m": {"uri": "u"}}}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "NUMBER_DOUBLE", "3.0"),
        (3.0, "NUMBER_INTEGER", "3"),
        (3.5, "NUMBER_INTEGER", "3.5"),
        (True, "BOOLEAN", "True"),
    ],
)
def test_numbers_take_the_declared_type(value: Any, kind: str, expected: str) -> None:
    assert repr(localsteps.typed(value, kind)) == expected


def test_inputs_without_a_value_are_unbound_also_in_inner_dags() -> None:
    inner = {"inputDefinitions": {"parameters": {"y": {}}}, "dag": {"tasks": {"b": task("leaf", y="y")}}}
    spec = {
        "components": {"inner": inner, "leaf": {}},
        "root": {
            "inputDefinitions": {
                "parameters": {"x": {"isOptional": True}, "z": {"isOptional": True, "defaultValue": 1}}
            },
            "dag": {"tasks": {"a": task("inner", y="x", z="z")}},
        },
    }
    localsteps.leave_out(spec, given=[])
    assert spec["root"]["dag"]["tasks"]["a"] == task("inner", z="z")
    assert inner["dag"]["tasks"]["b"] == task("leaf")


def task(component: str, **bound: str) -> dict[str, Any]:
    parameters = {name: {"componentInputParameter": source} for name, source in bound.items()}
    return {"componentRef": {"name": component}, "inputs": {"parameters": parameters}}
