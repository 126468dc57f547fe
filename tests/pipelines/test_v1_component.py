"""Components as KFP v1 wrote them: they load, they compile, and what cannot is said."""

from pathlib import Path

import pytest
from kfp import compiler, dsl

from pipelines.compile import EXAMPLES, compile_pipelines
from pipelines.errors import PipelineError
from pipelines.placement import Placement
from pipelines.v1_component import load_v1
from service.packages import compiled

HEAD = "name: Train it\ninputs:\n{inputs}\nimplementation:\n  container:\n    image: python:3.11\n    args:\n{args}\n"


def component(inputs: list[str], args: list[str]) -> str:
    return HEAD.format(inputs="\n".join(f"- {one}" for one in inputs), args="\n".join(f"    - {one}" for one in args))


def test_the_example_compiles_to_a_package_that_the_service_reads(tmp_path: Path) -> None:
    name = "example-v1-component"
    [path] = compile_pipelines(tmp_path, Placement(), "v1", {name: EXAMPLES[name]})
    found = compiled(path.read_bytes(), path.name)
    assert {one: kind.type for one, kind in found.inputs.items()} == {"source": "STRING", "pattern": "STRING"}
    assert (found.images, found.containers) == (["alpine:3.20"], ["count-lines"])


@pytest.mark.parametrize(
    ("declared", "use", "kind"),
    [
        ("{name: In Put, type: GCSPath}", "{inputValue: In Put}", "STRING"),
        ("{name: In Put, type: GCSPath, default: 'gs://b/o'}", "{inputValue: In Put}", "STRING"),
        ("{name: In Put, type: {GCSPath: {data_type: CSV}}}", "{inputValue: In Put}", "STRING"),
        ("{name: In Put, type: GCPProjectID}", "{concat: [--project=, {inputValue: In Put}]}", "STRING"),
        ("{name: In Put}", "{if: {cond: {isPresent: In Put}, then: [{inputValue: In Put}]}}", "STRING"),
        ("{name: In Put, type: Integer, default: '100'}", "{inputValue: In Put}", "NUMBER_INTEGER"),
        ("{name: In Put, type: Bool, default: 'True'}", "{inputValue: In Put}", "BOOLEAN"),
        ("{name: In Put, type: JsonObject, default: '{}'}", "{inputValue: In Put}", "STRUCT"),
    ],
)
def test_what_v1_gave_as_a_value_takes_a_pipeline_s_parameter(
    declared: str, use: str, kind: str, tmp_path: Path
) -> None:
    step = load_v1(component([declared], [use]))
    types = {"STRING": str, "NUMBER_INTEGER": int, "BOOLEAN": bool, "STRUCT": dict}

    def run(given):  # type: ignore[no-untyped-def]  # its type is the table's
        step(in_put=given)

    run.__annotations__ = {"given": types[kind]}
    compiler.Compiler().compile(dsl.pipeline(name="p")(run), str(tmp_path / "p.yaml"))
    assert compiled((tmp_path / "p.yaml").read_bytes(), "p.yaml").inputs["given"].type == kind


def test_what_is_read_as_a_file_stays_an_artifact() -> None:
    made = load_v1(
        component(["{name: table, type: CSV}", "{name: other}"], ["{inputPath: table}", "{inputPath: other}"])
    )
    assert {one.type for one in made.component_spec.inputs.values()} == {"system.Artifact@0.0.1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "it has no `implementation`"),
        ("name: x", "it has no `implementation`"),
        ("name: x\nimplementation: {graph: {tasks: {}}}", "rewrite a graph as a @dsl.pipeline"),
        ("name: x\nimplementation: {container: {image: x, fileOutputs: {o: /o}}}", "KFP 2 reads no file of a fixed"),
        (component(["{name: a, type: String}"], ["{inputPath: a}"]), "'a' is read as a file and given as a value"),
        ("name: x\nimplementation: [", "it is no YAML at line 2"),
        ("name: x\nimplementation: {container: {args: [a]}}", "the container has no `image`"),
        ("name: x\nimplementation: {container: {image: x, args: a}}", "the container's args must be a list"),
        ("name: x\nimplementation: {container: {image: x, argz: [a]}}", "there is no key `argz`"),
        (component(["{name: a, kind: String}"], ["{inputValue: a}"]), "there is no key `kind`"),
        (component(["{type: String}"], ["{inputValue: a}"]), "`inputs` must be a list with a `name` in each"),
        (component(["a"], ["{inputValue: a}"]), "`inputs` must be a list with a `name` in each"),
        (component(["{name: a}"], ["{inputValue: b}"]), "{inputValue: b}: there is no such name in `inputs`"),
        (component(["{name: a}"], ["{outputPath: a}"]), "{outputPath: a}: there is no such name in `outputs`"),
    ],
)
def test_what_kfp_2_has_no_place_for_is_said(text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        load_v1(text)
