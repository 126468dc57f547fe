"""A version of a model → served, or everything as it was. Called by component.py.

Applied by the server, waited for, and rolled back when it does not become ready: to the InferenceService as it was
before, or to none. The same again changes nothing and only waits.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.components.deploy_model.cluster import Cluster, Unanswered
from pipelines.components.deploy_model.manifest import MODEL, Manifest, Wanted, earlier, inference_service
from pipelines.components.deploy_model.rollout import Look, judge
from pipelines.errors import PipelineError
from pipelines.report import Dataset, Step

EVERY = 2.0  # seconds between two looks
AT_MOST = 3_300  # seconds


@dataclass(frozen=True)
class Patience:
    """How a deployment is made: for how long it may take, and whether fields of others are taken over."""

    timeout: float  #: seconds
    force: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= AT_MOST:
            raise PipelineError(
                f"timeout_seconds is {self.timeout:g}, and must lie within {AT_MOST}: the step itself has an hour, and "
                "one that is killed rolls nothing back"
            )


def deploy(cluster: Cluster, wanted: Wanted, patience: Patience, step: Step) -> str:
    """The address of the served version; PipelineError, and the state before, when it does not become ready."""
    manifest, before = inference_service(wanted), cluster.read(wanted.service)
    served = Dataset(f"kserve:{cluster.namespace}", wanted.service)
    step.facts |= {"model": wanted.model, "before": _model_of(before)}
    cluster.apply(manifest, force=patience.force)
    try:
        look = _waited(cluster, wanted, patience.timeout)
    except BaseException as error:
        step.facts["rolled_back"] = _roll_back(cluster, wanted, before, error)
        raise
    step.outputs.append(served)
    step.facts["url"] = look.detail
    return look.detail


def _waited(cluster: Cluster, wanted: Wanted, timeout: float) -> Look:
    """Looks until it is ready; tells each change on the way. A look that the API did not answer is one to repeat."""
    began, told = time.monotonic(), ""
    while True:
        waited = time.monotonic() - began
        look = _look(cluster, wanted, waited)
        if look.detail != told:
            print(f"{waited:5.0f} s  {'ready: ' if look.ready else ''}{look.detail}", flush=True)
            told = look.detail
        if look.ready:
            return look
        if look.failed:
            raise PipelineError(f"KServe cannot serve {wanted.model}: {look.detail}")
        if waited > timeout:
            raise PipelineError(f"{wanted.model} was not ready within {timeout:g} s: {look.detail}")
        time.sleep(EVERY)


def _look(cluster: Cluster, wanted: Wanted, waited: float) -> Look:
    try:
        service = cluster.read(wanted.service)
        if service is None:
            raise PipelineError(f"somebody deleted the InferenceService {wanted.service} while it was rolled out")
        return judge(service, cluster.deployments(wanted.service), wanted.storage_uri, waited)
    except Unanswered as error:
        return Look(ready=False, failed=False, detail=str(error))


def _roll_back(cluster: Cluster, wanted: Wanted, before: Manifest | None, error: BaseException) -> str:
    """Puts back what was there; says what that was, also when that fails, for then a person has to."""
    to = _model_of(before) or ("what it was" if before else "nothing: it is deleted")
    try:
        if before is None:
            cluster.delete(wanted.service)
        else:
            cluster.apply(earlier(before), force=True)
    except PipelineError as failed:
        error.add_note(f"and it could not be rolled back: {failed}")
        print(f"not rolled back to {to}: {failed}", flush=True)
        return f"failed: {failed}"
    print(f"rolled back to {to}", flush=True)
    return to


def _model_of(service: Mapping[str, Any] | None) -> str:
    return str(((service or {}).get("metadata", {}).get("annotations") or {}).get(MODEL, ""))
