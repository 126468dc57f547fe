"""Compiled pipelines in a folder, `packages/<name>@<version>.yaml`: what `service.local` can run.

Reads KFP's IR as plain YAML: importing kfp takes two seconds and nobody here needs it.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from service.errors import Permanent
from service.ports import Pipeline
from triggers.schema import Input

_REFERENCE = re.compile(r"([A-Za-z0-9._-]+)@([A-Za-z0-9._-]+)")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_AT_MOST = 16 << 20
_NAMED_AT_MOST = 20


class Packages:
    """The folder, with what was read kept for as long as a file does not change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._known: dict[Path, tuple[int, int, str, dict[str, Input]]] = {}

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline of `name@version` or `name@latest`; Permanent when there is none."""
        parts = _REFERENCE.fullmatch(reference)
        if not parts:
            raise Permanent(
                f"a local pipeline is written name@version, of letters, digits, `.`, `_`, `-`: {reference!r}"
            )
        name, version = parts.groups()
        path = self._latest(name) if version == "latest" else self._folder / f"{reference}.yaml"
        try:
            digest, inputs = self._read(path)
        except FileNotFoundError:
            raise Permanent(f"no package {reference} in {self._folder}; {self._there()}") from None
        version = path.stem.removeprefix(f"{name}@")
        return Pipeline(reference=reference, name=name, version=version, digest=digest, inputs=inputs)

    def content(self, pipeline: Pipeline) -> bytes:
        """The bytes that were resolved; Permanent when the file holds others by now."""
        try:
            found = (self._folder / f"{pipeline.name}@{pipeline.version}.yaml").read_bytes()
        except FileNotFoundError:
            raise Permanent(f"the package {pipeline.name}@{pipeline.version} is gone; {self._there()}") from None
        if hashlib.sha256(found).hexdigest() != pipeline.digest:
            raise Permanent(
                f"the package {pipeline.name}@{pipeline.version} has other content than when the run was decided: "
                "give changed content a new version"
            )
        return found

    def _latest(self, name: str) -> Path:
        """The greatest version number; only where no version is a number, the file that was changed last."""
        found = {path: _version(path) for path in self._folder.glob(f"{name}@*.yaml")}
        if not found:
            return self._folder / f"{name}@latest.yaml"  # which is not there either
        if numbered := {path: version for path, version in found.items() if version is not None}:
            return max(numbered, key=lambda path: (numbered[path], path.name))
        return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _read(self, path: Path) -> tuple[str, dict[str, Input]]:
        state = path.stat()
        known = self._known.get(path)
        if known and known[:2] == (state.st_mtime_ns, state.st_size):
            return known[2:]
        if state.st_size > _AT_MOST:
            raise Permanent(f"{path.name} has {state.st_size} bytes: more than a compiled pipeline may")
        content = path.read_bytes()
        digest, inputs = hashlib.sha256(content).hexdigest(), _inputs(path.name, content)
        self._known[path] = (state.st_mtime_ns, state.st_size, digest, inputs)
        return digest, inputs

    def _there(self) -> str:
        names = sorted(path.stem for path in self._folder.glob("*@*.yaml"))
        more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
        return f"there is {', '.join(names[:_NAMED_AT_MOST])}{more}" if names else "there is none at all"


def _version(path: Path) -> Version | None:
    try:
        return Version(path.stem.partition("@")[2])
    except InvalidVersion:
        return None


def _inputs(name: str, content: bytes) -> dict[str, Input]:
    """The first document is the pipeline; a second one may hold what only a cluster reads."""
    try:
        spec = next(yaml.load_all(content, _LOADER))
        declared: Mapping[str, Any] = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {parameter: _input(one) for parameter, one in declared.items()}
    except (yaml.YAMLError, StopIteration, KeyError, TypeError, AttributeError) as problem:
        raise Permanent(f"{name} is not a compiled KFP v2 pipeline: {problem!r}") from problem


def _input(declared: Mapping[str, Any]) -> Input:
    kind, default = str(declared["parameterType"]), declared.get("defaultValue")
    if kind == "NUMBER_INTEGER" and isinstance(default, float) and default.is_integer():
        default = int(default)  # the compiler writes an int as 1.0
    return Input(type=kind, optional=bool(declared.get("isOptional")), default=default)
