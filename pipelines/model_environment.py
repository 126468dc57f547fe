"""The library versions that a model was made with, against those here. Called by registered_model.py.

A difference is noted in the report and logged as a warning; it ends nothing, for most differences do no harm.
"""

import logging
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

# Model type → the packages that decide how its models are read, and where MLflow notes the version of the first.
LIBRARIES = {
    "sklearn": ("scikit-learn", "skops"),
    "xgboost": ("xgboost",),
    "tensorflow": ("tensorflow", "keras"),
}
NOTED = {"sklearn": "sklearn_version", "xgboost": "xgb_version", "tensorflow": "keras_version"}

log = logging.getLogger(__name__)


def recorded(folder: Path, info: Any, model_type: str) -> dict[str, str]:
    """Library → version, of Python and of the type's libraries, as far as the saved model says.

    `==` lines of its requirements.txt, and MLflow's own note, which is there for models of any origin (for a Keras
    model MLflow notes TensorFlow's version under `keras_version`).
    """
    found = {"python": info.flavors.get("python_function", {}).get("python_version", "")}
    path = folder / "requirements.txt"
    pins = dict(re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;]+)", path.read_text("utf-8"))) if path.exists() else {}
    found |= {name: pins[name] for name in LIBRARIES[model_type] if name in pins}
    found[LIBRARIES[model_type][0]] = info.flavors[model_type].get(NOTED[model_type]) or ""
    return {name: str(version) for name, version in found.items() if version}


def differences(recorded: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Versions the model was made with that are not the ones here, each with both."""
    found = {
        name: {"model": version, "here": here} for name, version in recorded.items() if (here := _here(name)) != version
    }
    for name, versions in found.items():
        log.warning("model_environment_differs library=%s model=%s here=%s", name, versions["model"], versions["here"])
    return found


def _here(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return installed(name)
    except PackageNotFoundError:
        return "none"
