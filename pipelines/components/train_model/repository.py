"""The contract of a model repository, and what is said when one does not keep it. Called by fit.py.

`model.py` has `build(params)`, which returns an unfitted estimator; `params.yaml` and `requirements.txt` are
optional. The code is run here with this step's credentials: the repository is trusted by whoever configured its
source.
"""

import importlib.util
import re
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from pipelines.errors import PipelineError


@dataclass(frozen=True)
class Repository:
    """What a model repository offers:

    its estimator, the parameters it was built with, the types of its own it vouches for.
    """

    folder: Path
    params: dict[str, Any]
    estimator: Any
    trusted_types: tuple[str, ...]
    requirements: tuple[str, ...]


def unpack(code: Path, folder: Path) -> Path:
    """The files of a checked-out commit."""
    with tarfile.open(code) as archive:
        archive.extractall(folder, filter="data")
    return folder


def open_repository(folder: Path) -> Repository:
    """Checks the environment, imports model.py and builds the estimator."""
    requirements = read_requirements(folder / "requirements.txt")
    check_environment(requirements)
    params = read_params(folder / "params.yaml")
    module = import_model(folder)
    trusted = getattr(module, "TRUSTED_TYPES", ())
    if isinstance(trusted, str) or not all(isinstance(name, str) for name in trusted):
        raise PipelineError("TRUSTED_TYPES in model.py must be a list of names such as 'model.Clip'")
    return Repository(folder, params, build(module, params), tuple(trusted), requirements)


def read_params(path: Path) -> dict[str, Any]:
    """params.yaml, or nothing."""
    if not path.exists():
        return {}
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineError("params.yaml of the model repository is no valid YAML") from error
    if not isinstance(params or {}, dict):
        raise PipelineError("params.yaml of the model repository must be a mapping of names to values")
    return params or {}


def read_requirements(path: Path) -> tuple[str, ...]:
    """The lines of requirements.txt without comments."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def check_environment(requirements: Sequence[str]) -> None:
    """Nothing is installed for a run, the image is what it is:

    every requirement must hold already. All that don't are named.
    """
    problems = [problem for line in requirements if (problem := _unmet(line))]
    if problems:
        raise PipelineError(f"requirements.txt of the model repository is not met by this image: {'; '.join(problems)}")


def import_model(folder: Path) -> ModuleType:
    """model.py, imported as `model` with its folder on the path, so that it may import its neighbours."""
    path = folder / "model.py"
    if not path.exists():
        raise PipelineError("the model repository has no model.py at its root")
    spec = importlib.util.spec_from_file_location("model", path)
    if spec is None or spec.loader is None:
        raise PipelineError("model.py of the model repository cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    sys.modules["model"] = module  # a class defined there must be found again under this name when the model is saved
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PipelineError(f"importing model.py of the model repository failed: {_first_line(error)}") from error
    return module


def build(module: ModuleType, params: dict[str, Any]) -> Any:
    """What `build(params)` returns, if it can be fitted and gives probabilities."""
    maker = getattr(module, "build", None)
    if not callable(maker):
        raise PipelineError("model.py of the model repository has no function build(params)")
    try:
        estimator = maker(dict(params))
    except Exception as error:
        raise PipelineError(f"build(params) of the model repository failed: {_first_line(error)}") from error
    if not callable(getattr(estimator, "fit", None)):
        raise PipelineError(
            f"build(params) must return an unfitted estimator; it returned {type(estimator).__name__}, which has no fit"
        )
    return estimator


def _unmet(line: str) -> str:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return f"{line[:80]!r} is not a plain requirement like scikit-learn>=1.5"
    if requirement.url:
        return f"{requirement.name} asks for a URL, which is never installed"
    if requirement.marker and not requirement.marker.evaluate():
        return ""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    return "" if requirement.specifier.contains(found, prereleases=True) else f"{line} is wanted, {found} is installed"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}"
