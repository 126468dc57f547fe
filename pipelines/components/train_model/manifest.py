"""What stands beside a model of any type: requirements, the repository's code, the types of its columns.

Called by scikit.py, boosting.py and network.py.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError

ALWAYS = ("mlflow", "numpy", "pandas")
TYPES = {
    "int64": "long",
    "int32": "integer",
    "double": "double",
    "float": "float",
    "string": "string",
    "large_string": "string",
    "bool": "boolean",
}


def kept(repository: Repository, packages: Sequence[str], **metadata: Any) -> dict[str, Any]:
    """What every `save_model` of MLflow is given alike, by its parameters' names."""
    return {
        "pip_requirements": pinned(repository.requirements, packages),
        "code_paths": code_of(repository) or None,
        "metadata": {"params": repository.params} | metadata,
    }


def code_of(repository: Repository) -> list[str]:
    """The repository's Python files and packages."""
    return [
        str(path)
        for path in sorted(repository.folder.iterdir())
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]


def pinned(requirements: Sequence[str], packages: Sequence[str]) -> list[str]:
    """One line a package, with the version that was trained with:

    given two lines for one, MLflow would run pip to compare them.
    """
    wanted = [Requirement(line) for line in requirements]
    names = {canonicalize_name(item.name) for item in wanted if not item.marker or item.marker.evaluate()}
    return [f"{name}=={version(name)}" for name in sorted({*names, *ALWAYS, *packages})]


def type_names(schema: pa.Schema) -> dict[str, str]:
    """Column → its type in MLflow's words, in order."""
    if strange := [f"{field.name} ({field.type})" for field in schema if str(field.type) not in TYPES]:
        raise PipelineError(f"features of a type that no model can name: {', '.join(strange)}")
    return {field.name: TYPES[str(field.type)] for field in schema}


def signature(schema: pa.Schema, output: str) -> Any:
    """The features by name and type, in order, and the type of the class that comes out."""
    inputs = Schema([ColSpec(kind, name) for name, kind in type_names(schema).items()])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec(output)]))
