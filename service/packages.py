"""A compiled KFP v2 pipeline as a plain value: its name, inputs and images, and the digest that is its identity.

Called wherever a package is read: from the local folder, from a repository's commit, before an upload. Reads KFP's IR
as plain YAML: importing kfp takes two seconds and nobody here needs it. The bytes may be foreign; nothing is executed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from service.errors import Permanent
from triggers.schema import Input

AT_MOST = 16 << 20  #: bytes; more is no package
KFP_AT_MOST = 3 << 20  #: bytes of a Workflow that a KFP API server takes

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_DEEPEST = 200  #: PyYAML's own composer ends the process by a stack overflow
_DOCUMENTS = 2  #: the pipeline, and what only a cluster's platform reads
_EXECUTOR = "kfp.dsl.executor_main"  # what runs a Python component; with its code in the command, or in the image


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a package says of itself."""

    name: str
    inputs: Mapping[str, Input]
    digest: str  #: the same for the same pipeline, however its YAML is written
    images: Sequence[str]
    containers: Sequence[str]  #: steps whose program is in their image: they cannot run as a plain process
    size: int  #: bytes

    @property
    def warnings(self) -> Sequence[str]:
        """What is no reason to refuse it, and will be one elsewhere."""
        if self.size <= KFP_AT_MOST:
            return ()
        return (f"it has {self.size} bytes: a KFP API server takes no more than {KFP_AT_MOST}",)


def compiled(content: bytes, where: str) -> Compiled:
    """The package in a file; Permanent, naming `where` it is from, when it is none."""
    return described(_documents(content, where), where, len(content))


def described(documents: Sequence[Mapping[str, Any]], where: str, size: int = 0) -> Compiled:
    """The package in documents that were read: the pipeline's, and maybe its platform's."""
    spec = documents[0]
    if other := _other_kind(spec):
        raise Permanent(f"{where} is {other}")
    try:
        declared: Mapping[str, Any] = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        executors: Mapping[str, Any] = spec.get("deploymentSpec", {}).get("executors", {})
        containers = {name: one["container"] for name, one in executors.items() if "container" in one}
        return Compiled(
            name=str(spec["pipelineInfo"]["name"]),
            inputs={parameter: _input(one) for parameter, one in declared.items()},
            digest=digest_of(documents),
            images=images_of(spec),
            containers=sorted(name.removeprefix("exec-") for name, one in containers.items() if _is_in_image(one)),
            size=size,
        )
    except KeyError as problem:
        raise Permanent(f"{where} is not a compiled KFP v2 pipeline: it has no {problem}") from problem
    except (TypeError, AttributeError, ValueError, OverflowError) as problem:
        raise Permanent(f"{where} is not a compiled KFP v2 pipeline: {problem!r}") from problem


def images_of(spec: Mapping[str, Any]) -> list[str]:
    """The container images of a pipeline spec, with the digest where it is pinned by one."""
    executors = (spec.get("deploymentSpec") or {}).get("executors") or {}
    found = (((one or {}).get("container") or {}).get("image") for one in executors.values())
    return sorted({str(image) for image in found if image})


def digest_of(documents: Sequence[Mapping[str, Any]]) -> str:
    """sha256 of the pipeline spec and its platform spec, as canonical JSON.

    A KFP API server gives back the values and not the text, and every number as a double: so not of the bytes.
    """
    platform = documents[1] if len(documents) > 1 else {}
    whole = {"pipeline_spec": _canonical(documents[0]), "platform_spec": _canonical(platform)}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = float(value)
    return int(number) if number.is_integer() else number


def _documents(content: bytes, where: str) -> list[Any]:
    if len(content) > AT_MOST:
        raise Permanent(f"{where} has {len(content)} bytes: more than a compiled pipeline may, {AT_MOST}")
    try:
        _refuse_traps(content, where)
        found = [one for one in yaml.load_all(content, _LOADER) if one is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise Permanent(f"{where} is not a compiled KFP v2 pipeline, nor YAML: {_first_line(problem)}") from problem
    if not found or len(found) > _DOCUMENTS or not all(isinstance(one, dict) for one in found):
        raise Permanent(f"{where} is not a compiled KFP v2 pipeline: one mapping, or two, one for the platform")
    return found


def _refuse_traps(content: bytes, where: str) -> None:
    """Before anything is built: aliases grow without bound, and deep nesting overflows the stack."""
    depth = 0
    for event in yaml.parse(content, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise Permanent(f"{where} is not a compiled KFP v2 pipeline: it has YAML aliases, which KFP never writes")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise Permanent(f"{where} is not a compiled KFP v2 pipeline: nested deeper than {_DEEPEST}")


def _other_kind(document: Mapping[str, Any]) -> str:
    """What people hand over instead, by name."""
    kind, group = document.get("kind"), str(document.get("apiVersion", ""))
    if kind in {"Workflow", "WorkflowTemplate"} and group.startswith("argoproj.io"):
        return f"an Argo {kind}, as KFP v1 compiled to: compile the pipeline with kfp 2"
    if kind and group:
        return f"a Kubernetes manifest ({kind}), not a compiled KFP v2 pipeline: compile it with kfp 2"
    if "implementation" in document:
        return "a KFP v1 component: write it with kfp 2's dsl and compile that"
    return ""


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), "")[:200]


def _is_in_image(container: Mapping[str, Any]) -> bool:
    """As kfp.local's subprocess runner tells: its `validate_not_container_component` and the one beside it."""
    command = [str(word) for word in (*container.get("command", ()), *container.get("args", ()))]
    return command[:3] == ["python3", "-m", _EXECUTOR] or not any(_EXECUTOR in word for word in command)


def _input(declared: Mapping[str, Any]) -> Input:
    kind, default = str(declared["parameterType"]), declared.get("defaultValue")
    if kind == "NUMBER_INTEGER" and isinstance(default, float) and default.is_integer():
        default = int(default)  # the compiler writes an int as 1.0
    return Input(type=kind, optional=bool(declared.get("isOptional")), default=default)
