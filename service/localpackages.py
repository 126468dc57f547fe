"""Compiled pipelines in a folder, `packages/<name>@<version>.yaml`: what `service.local` can run.

A version's file is written once and never changed; a person may put one there by hand. What is in it,
`service.packages` reads.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import InvalidVersion
from packaging.version import Version as Number

from service.errors import Permanent
from service.packages import AT_MOST, Compiled, compiled
from service.ports import Finding, Pipeline, Version

_REFERENCE = re.compile(r"([A-Za-z0-9._-]+)@([A-Za-z0-9._-]+)")
_NAMED_AT_MOST = 20


class Packages:
    """The folder, with what was read kept for as long as a file does not change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._known: dict[Path, tuple[int, int, Compiled]] = {}

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline of `name@version` or `name@latest`; Permanent when there is none."""
        name, version = _parts(reference)
        path = self._path(name, version)
        if version == "latest":
            path = next(iter(self._newest_first(name)), path)
        try:
            found = self._read(path)
        except FileNotFoundError:
            raise Permanent(f"no package {reference} in {self._folder}; {self._there()}") from None
        return Pipeline(
            reference=reference,
            name=name,
            version=_version(path),
            digest=found.digest,
            inputs=found.inputs,
            images=found.images,
        )

    def content(self, pipeline: Pipeline) -> bytes:
        """The bytes that were resolved; Permanent when the file holds another pipeline by now."""
        path = self._path(pipeline.name, pipeline.version)
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            raise Permanent(f"the package {pipeline.name}@{pipeline.version} is gone; {self._there()}") from None
        if compiled(found, path.name).digest != pipeline.digest:
            raise Permanent(
                f"the package {pipeline.name}@{pipeline.version} has other content than when the run was decided: "
                "give changed content a new version"
            )
        return found

    def versions(self, name: str = "") -> Sequence[Version]:
        """By name, then the newest first, which is what `@latest` stands for. A file that is no package is left out."""
        names = sorted({path.stem.partition("@")[0] for path in self._folder.glob("*@*.yaml")})
        paths = [path for one in names if not name or one == name for path in self._newest_first(one)]
        return [
            Version(
                pipeline=path.stem.partition("@")[0],
                version=_version(path),
                digest=found.digest,
                created_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
            )
            for path in paths
            if isinstance(found := self._try(path), Compiled)
        ]

    def push(self, name: str, version: str, content: bytes) -> bool:
        """Write it as a version. False when it is there with this content; Permanent with another."""
        _parts(f"{name}@{version}")
        if version == "latest":
            raise Permanent("`latest` is no version: it stands for the newest one")
        path = self._path(name, version)
        given = compiled(content, f"{name}@{version}")
        if self._put(path, content):
            return True
        if self._read(path).digest != given.digest:
            raise Permanent(f"{name}@{version} is there with other content: give changed content a new version")
        return False

    def check(self) -> Iterator[Finding]:
        """The folder, and every file in it that cannot run here."""
        paths = sorted(self._folder.glob("*@*.yaml"))
        there = self._folder.is_dir()
        remedy = "" if there else ": there is no such folder; `kfp-triggers pipelines push` makes it"
        yield Finding(what="packages", good=there, detail=f"{self._folder}, {len(paths)} of them{remedy}")
        for path in paths:
            found = self._try(path)
            if isinstance(found, str):
                yield Finding(what=f"package {path.stem}", good=False, detail=found)
            elif found.containers:
                yield Finding(what=f"package {path.stem}", good=False, detail=cannot_run(found))

    def _put(self, path: Path, content: bytes) -> bool:
        """The whole file or none of it, and never over another: a link is made only where nothing is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".push-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            Path(temporary).unlink()
        return True

    def _path(self, name: str, version: str) -> Path:
        return self._folder / f"{name}@{version}.yaml"

    def _newest_first(self, name: str) -> list[Path]:
        """Version numbers, the greatest first; then what is no number, the file that was changed last first."""
        found = {path: _number(path) for path in self._folder.glob(f"{name}@*.yaml")}
        numbered = [(number, path.name, path) for path, number in found.items() if number is not None]
        others = [(path.stat().st_mtime_ns, path.name, path) for path, number in found.items() if number is None]
        return [path for *_, path in sorted(numbered, reverse=True)] + [
            path for *_, path in sorted(others, reverse=True)
        ]

    def _read(self, path: Path) -> Compiled:
        state = path.stat()
        known = self._known.get(path)
        if known and known[:2] == (state.st_mtime_ns, state.st_size):
            return known[2]
        if state.st_size > AT_MOST:
            raise Permanent(f"{path.name} has {state.st_size} bytes: more than a compiled pipeline may")
        found = compiled(path.read_bytes(), path.name)
        self._known[path] = (state.st_mtime_ns, state.st_size, found)
        return found

    def _try(self, path: Path) -> Compiled | str:
        """The package, or what is wrong with the file."""
        try:
            return self._read(path)
        except Permanent as problem:
            return problem.detail
        except OSError as problem:
            return f"{path.name}: {problem.strerror}"

    def _there(self) -> str:
        names = sorted(path.stem for path in self._folder.glob("*@*.yaml"))
        more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
        return f"there is {', '.join(names[:_NAMED_AT_MOST])}{more}" if names else "there is none at all"


def cannot_run(package: Compiled) -> str:
    """Why a package with steps of that kind is refused here."""
    steps = ", ".join(package.containers)
    return (
        f"{package.name} has steps that only run in a container ({steps}), and the local backend runs each step as a "
        "process: run it on a Kubeflow Pipelines backend, or write the step with @dsl.component"
    )


def _parts(reference: str) -> tuple[str, str]:
    parts = _REFERENCE.fullmatch(reference)
    if not parts:
        raise Permanent(f"a local pipeline is written name@version, of letters, digits, `.`, `_`, `-`: {reference!r}")
    return parts[1], parts[2]


def _version(path: Path) -> str:
    return path.stem.partition("@")[2]


def _number(path: Path) -> Number | None:
    try:
        return Number(_version(path))
    except InvalidVersion:
        return None
