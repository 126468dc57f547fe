"""What MLflow throws, in the words of whoever runs the step. Used where a step asks the registry or loads a model."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from pipelines.errors import PipelineError
from pipelines.mlflow_plugins import leave_out_feast

# How often a request is repeated. MLflow's own default waits four minutes on a registry that is not there; a step
# that fails is repeated by whoever runs the pipeline.
RETRIES = "3"

# How a store's refusal is told: by MLflow's code, or by boto's own words where MLflow passes them on.
REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
           "NoCredentials", "Forbidden")  # fmt: skip

# And how it says that a file is not there, be it that somebody removed it.
GONE = ("RESOURCE_DOES_NOT_EXIST", "NoSuchKey", "NoSuchBucket", "(404)", "FileNotFoundError", "No such artifact")


class Unreachable(PipelineError):
    """The registry, or the store behind it, does not answer or lets nobody in: it tells nothing of a model.

    Whoever can do without the model must not take this for its absence; repeated later, the step may succeed.
    """


@contextmanager
def registry(uri: str) -> Iterator[None]:
    """Around questions to MLflow's registry; `uri` is what is asked for."""
    leave_out_feast()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    if not os.environ.get("MLFLOW_TRACKING_URI") and not os.environ.get("MLFLOW_REGISTRY_URI"):
        raise PipelineError("MLFLOW_TRACKING_URI is not set: there is no registry to ask")
    try:
        yield
    except MlflowException as error:
        raise _refusal(error, uri) from error


@contextmanager
def artifacts(uri: str) -> Iterator[None]:
    """Around the download of a registered model's files, from MLflow's server or from the store behind it."""
    leave_out_feast()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it fills the run's log
    try:
        yield
    except Exception as error:
        told = f"{getattr(error, 'error_code', '')} {type(error).__name__} {error}"
        why = "this step's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are refused: "
        refused = any(word in told for word in REFUSED)
        kind = PipelineError if not refused and any(word in told for word in GONE) else Unreachable
        raise kind(f"the artifacts of {uri} were not read: {why * refused}{first_line(error)}") from error


@contextmanager
def loading(uri: str) -> Iterator[None]:
    """Around the reading of a saved model: whatever its libraries and its own code throw. No row is near yet."""
    try:
        yield
    except SystemExit as error:
        raise PipelineError(f"{uri} cannot be loaded: its code called sys.exit") from error
    except Exception as error:
        raise PipelineError(f"{uri} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 300 characters of it, and no password of an address."""
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"//[^/@\s]+@", "//", text)[:300]


def _refusal(error: MlflowException, uri: str) -> PipelineError:
    """One sentence: what was asked for, what came back, what to change. Only an absence is told as a fact."""
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)
    ):
        return PipelineError(f"there is no {uri} in the registry")
    if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return Unreachable(
            "the registry refuses this step: check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if "failed with exception" in str(error) or "failed with timeout" in str(error):
        return Unreachable(f"the registry behind MLFLOW_TRACKING_URI cannot be reached, so {uri} was not read")
    return Unreachable(f"{uri} cannot be read from the registry: {first_line(error)}")
