"""A `component.yaml` as KFP v1 knew it → a component of KFP v2. Called by whoever reuses one in a pipeline.

Most there are work as they stand: KFP 2 still reads the format. Not so an input of a type that KFP 2 has no parameter
for (`GCSPath`, `URI`, `GCPProjectID`, none at all): it takes that for an artifact, which no text can be given to. v1
gave a text to every `inputValue`, so such an input is made a String here, and stays an artifact where it is read as a
file. See pipelines/examples/v1_component.py.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from kfp import components, dsl

from pipelines.errors import PipelineError

VALUES = ("inputValue", "isPresent")

# What KFP 2 reads as a parameter's type, in small letters (kfp.dsl.types.type_utils).
PARAMETERS = {
    "string", "str", "text", "integer", "int", "float", "double", "bool", "boolean", "jsonarray", "list", "jsonobject",
    "dict", "struct",
}  # fmt: skip


def load_v1(text: str) -> dsl.base_component.BaseComponent:
    """The component, to be called in a pipeline with its inputs by name, in small letters with `_` for spaces.

    A PipelineError says what v1 had and KFP 2 has not: graph components, `fileOutputs`, a constant read as a file; or
    what is no component of v1.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineError(f"no component of KFP v1: it is no YAML{_line(error)}") from error
    container = _container(document)
    if "fileOutputs" in container:
        raise PipelineError("fileOutputs: KFP 2 reads no file of a fixed name; let the program take {outputPath: NAME}")
    uses = list(_uses([container.get("command"), container.get("args")]))
    for field, kinds in (("inputs", (*VALUES, "inputPath")), ("outputs", ("outputPath",))):
        names = _names(document, field)
        if lost := [f"{{{kind}: {name}}}" for kind, name in uses if kind in kinds and name not in names]:
            raise PipelineError(f"{', '.join(lost)}: there is no such name in `{field}`; declare it there")
    by_value = {name for kind, name in uses if kind in VALUES}
    by_path = {name for kind, name in uses if kind == "inputPath"}
    for one in document.get("inputs") or []:
        parameter = str(one.get("type", "")).lower() in PARAMETERS
        if one["name"] in by_path and (parameter or one["name"] in by_value):
            raise PipelineError(
                f"input {one['name']!r} is read as a file and given as a value: KFP 2 wants one of them"
            )
        if one["name"] in by_value and not parameter:
            one["type"] = "String"
    try:
        return components.load_component_from_text(yaml.safe_dump(document, sort_keys=False))
    except Exception as error:  # KFP 2 raises whatever its dataclasses do
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        why = f"there is no key `{unknown[1]}`" if unknown else str(error).strip().splitlines()[-1][:300]
        raise PipelineError(f"KFP 2 cannot read this component: {why}") from error


def _container(document: Any) -> dict[str, Any]:
    implementation = document.get("implementation") if isinstance(document, dict) else None
    if not isinstance(implementation, dict):
        raise PipelineError("no component of KFP v1: it has no `implementation`")
    if not isinstance(implementation.get("container"), dict):
        raise PipelineError("a component of KFP v1 without a container: rewrite a graph as a @dsl.pipeline")
    if not isinstance(implementation["container"].get("image"), str):
        raise PipelineError("the container has no `image`: name the one that its program is in")
    if wrong := [
        name for name in ("command", "args") if not isinstance(implementation["container"].get(name, []), list)
    ]:
        raise PipelineError(f"the container's {' and '.join(wrong)} must be a list, an argument a line")
    return dict(implementation["container"])


def _names(document: Any, field: str) -> list[str]:
    """What the inputs, or the outputs, are called."""
    given = document.get(field) or []
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.get("name") for one in given):
        raise PipelineError(f"`{field}` must be a list with a `name` in each: - {{name: table, type: CSV}}")
    return [str(one["name"]) for one in given]


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" at line {mark.line + 1}" if mark else ""


def _uses(value: Any) -> Iterator[tuple[str, str]]:
    """Every placeholder in the command line, also inside `if` and `concat`."""
    if isinstance(value, dict):
        for kind, inner in value.items():
            if isinstance(inner, str):
                yield kind, inner
            yield from _uses(inner)
    elif isinstance(value, list):
        for one in value:
            yield from _uses(one)
