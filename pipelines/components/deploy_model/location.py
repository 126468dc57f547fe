"""Where a registered model's files lie, at an address that KServe's pods can pull. Called by component.py.

KServe knows `s3://`. An MLflow server that hands artifacts on itself (`mlflow-artifacts:/`) has no address for it:
then the files are copied to a bucket, under name and version, the same each time.
"""

import os
import tempfile
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.errors import PipelineError
from pipelines.report import Step, model_version
from pipelines.storage import ObjectRef, upload


def storage_uri(name: str, version: int, serving_bucket: str, step: Step) -> str:
    """`s3://…` of the version's files; copied there when it has no such address."""
    step.inputs.append(model_version(name, version))
    try:
        found = MlflowClient().get_model_version_download_uri(name, str(version))
        if found.startswith("s3://"):
            return found
        if not serving_bucket:
            raise PipelineError(
                f"models:/{name}/{version} lies at {found.partition(':')[0]}:, which KServe cannot pull from: "
                "name a bucket in serving_bucket, and the files are copied there"
            )
        return _copied(name, version, serving_bucket)
    except MlflowException as error:
        raise PipelineError(f"models:/{name}/{version}: {str(error).splitlines()[0][:300]}") from error


def superseded(name: str, version: int, alias: str) -> int:
    """The version behind the alias when it is another one by now, else 0: a late deployment must not undo a later."""
    if not alias:
        return 0
    try:
        current = int(MlflowClient().get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        raise PipelineError(f"{name} has no alias {alias}: {str(error).splitlines()[0][:300]}") from error
    return current if current != version else 0


def _copied(name: str, version: int, bucket: str) -> str:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=folder))
        for path in sorted(root.rglob("*")):
            if path.is_file():
                upload(ObjectRef(bucket, f"{name}/{version}/{path.relative_to(root).as_posix()}"), path, {})
    return f"s3://{bucket}/{name}/{version}"
