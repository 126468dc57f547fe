"""The contract of a model repository, and what is said when one does not keep it. Called by fit.py.

`model.py` has `build(params)`, which returns an unfitted estimator; `params.yaml` and `requirements.txt` are
optional (docs/models.md). The code is run here with this step's credentials: the repository is trusted by whoever
configured its source.
"""

import importlib.util
import math
import random
import re
import sys
import tarfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from packaging.requirements import InvalidRequirement, Requirement

from pipelines import tensorflow_cpu
from pipelines.errors import PipelineError
from pipelines.registry_errors import first_line


@dataclass(frozen=True)
class Repository:
    """What a model repository offers:

    its estimator, the parameters it was built with, the types of its own it vouches for, and for a Keras model how the
    layers that must see the features before the training are shown them.
    """

    folder: Path
    params: dict[str, Any]
    estimator: Any
    trusted_types: tuple[str, ...]
    requirements: tuple[str, ...]
    adapt: Callable[[Any, dict[str, np.ndarray]], None] | None = None


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
    if not isinstance(trusted, list | tuple | set) or not all(isinstance(name, str) for name in trusted):
        raise PipelineError("TRUSTED_TYPES in model.py must be a list of names such as 'model.Clip'")
    adapt = getattr(module, "adapt", None)
    if adapt is not None and not callable(adapt):
        raise PipelineError("adapt in model.py must be a function adapt(model, features)")
    seed(params)
    return Repository(folder, params, build(module, params), tuple(trusted), requirements, adapt)


def seed(params: dict[str, Any]) -> None:
    """Sets what libraries draw from when they are given no seed, so that a training can be repeated; 0 unless
    params.yaml has a whole number `seed`. Before `build`, for Keras draws its first weights there.
    """
    number = params.get("seed", 0)
    if not isinstance(number, int) or not 0 <= number < 2**32:
        raise PipelineError("seed in params.yaml must be a whole number from 0 to 4294967295")
    random.seed(number)
    np.random.seed(number)  # scikit-learn draws from it where an estimator has no random_state
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(number)


def read_params(path: Path) -> dict[str, Any]:
    """params.yaml, or nothing."""
    if not path.exists():
        return {}
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        problems = list(_no_json(params, ""))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PipelineError("params.yaml of the model repository is no valid YAML") from error
    if not isinstance(params, dict):
        raise PipelineError("params.yaml of the model repository must be a mapping of names to values")
    if problems:
        raise PipelineError(f"params.yaml: {'; '.join(problems[:10])}")
    return params


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
        with tensorflow_cpu.quiet():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PipelineError(f"importing model.py of the model repository failed: {_named(error)}") from error
    return module


def build(module: ModuleType, params: dict[str, Any]) -> Any:
    """What `build(params)` returns, if it can be fitted and gives probabilities."""
    maker = getattr(module, "build", None)
    if not callable(maker):
        raise PipelineError("model.py of the model repository has no function build(params)")
    try:
        estimator = maker(dict(params))
    except (Exception, SystemExit) as error:
        raise PipelineError(f"build(params) of the model repository failed: {_named(error)}") from error
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


def _no_json(value: Any, name: str) -> Iterator[str]:
    """What the report and the registry could not keep of the parameters, by their names."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value, 1):
            yield from _no_json(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, date):
        yield f"{name} is a date; quote it"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is no finite number"
    elif value is not None and not isinstance(value, str | int | float):
        yield f"{name} is a {type(value).__name__}; write text, a number, a list or a mapping"


def where(error: BaseException, folder: Path) -> str:
    """The last line of the repository's own code that an error came through, as ` at model.py:12`, or nothing."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(folder)]
    return f" at {Path(frames[-1].filename).relative_to(folder)}:{frames[-1].lineno}" if frames else ""


def _named(error: BaseException) -> str:
    return "it called sys.exit" if isinstance(error, SystemExit) else f"{type(error).__name__}: {first_line(error)}"
