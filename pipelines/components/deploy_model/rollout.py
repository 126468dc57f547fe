"""Whether a rollout is over, as KServe tells it. Pure; called by deploy.py with what it has just read.

`status.observedGeneration` is of no use: KServe copies it from its Deployment or its Knative service, so it has
nothing to do with the InferenceService's own generation. And `Ready` stays True while an update rolls out, for the
old pods go on serving. So the Deployments below are asked too: KServe writes the address that a pod loads its model
from into the pod template (`…/storage-initializer-sourceuri`, with raw deployments and with Knative's). Where they
cannot be seen, or serving is scaled to zero, `Ready` counts once KServe has had time to see the change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.components.deploy_model.manifest import Manifest

SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
OF_SERVICE = "serving.kserve.io/inferenceservice"  # the label of everything that belongs to one
SEEN_AFTER = 10.0  # seconds in which KServe's controller takes a change up
FAILED = ("BlockedByFailedLoad", "InvalidSpec")


@dataclass(frozen=True)
class Look:
    """Where a rollout is."""

    ready: bool
    failed: bool
    detail: str  #: for a person


def judge(service: Manifest, deployments: Sequence[Manifest], storage_uri: str, waited: float) -> Look:
    """A look at the InferenceService and its Deployments, `waited` seconds after the change."""
    status = service.get("status") or {}
    model, ready = status.get("modelStatus") or {}, condition(status, "Ready")
    if waited >= SEEN_AFTER and (why := _failure(model)):
        return Look(ready=False, failed=True, detail=why)
    if ready.get("status") != "True":
        return Look(ready=False, failed=False, detail=_waits_for(status))
    told = [item for item in deployments if _source(item)]
    ours = [item for item in told if _source(item) == storage_uri]
    if told and not ours:
        return Look(ready=False, failed=False, detail="KServe has not begun to roll it out")
    if ours and not any(rolled_out(item) for item in ours):
        return Look(ready=False, failed=False, detail="the new pods are not all ready; the old ones go on serving")
    if not told and (waited < SEEN_AFTER or model.get("transitionStatus") == "InProgress"):
        return Look(ready=False, failed=False, detail="ready, and not yet known to be of this version")
    return Look(ready=True, failed=False, detail=str(status.get("url") or ""))


def rolled_out(deployment: Mapping[str, Any]) -> bool:
    """As `kubectl rollout status` has it."""
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    replicas = [status.get(name, 0) for name in ("updatedReplicas", "availableReplicas")]
    return current and all(number >= wanted for number in replicas) and status.get("replicas", 0) <= wanted


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One of the conditions, or nothing."""
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), {})


def _failure(model: Mapping[str, Any]) -> str:
    target = (model.get("states") or {}).get("targetModelState")
    if model.get("transitionStatus") not in FAILED and target != "FailedToLoad":
        return ""
    info = model.get("lastFailureInfo") or {}
    said = ": ".join(str(info[name]) for name in ("reason", "message") if info.get(name))
    return (said or str(model.get("transitionStatus") or target))[:500]


def _waits_for(status: Mapping[str, Any]) -> str:
    waiting = [
        f"{item['type']}: {item.get('message') or item.get('reason') or item.get('status')}"
        for item in status.get("conditions") or ()
        if item.get("status") != "True" and item.get("type") not in ("Stopped", "Ready")
    ]
    return "; ".join(waiting)[:500] or "KServe has not said anything yet"


def _source(deployment: Mapping[str, Any]) -> str:
    template = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return str(template.get(SOURCE, ""))
