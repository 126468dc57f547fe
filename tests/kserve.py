"""KServe's part, played on a real Kubernetes API: its CRD, and what its controller does to an InferenceService.

As KServe 0.16's raw deployments do it (read in its source): a Deployment `<name>-predictor` whose pod template carries
the model's address, `Ready` that stays True while an update rolls out, `observedGeneration` copied from the
Deployment, `modelStatus` with `transitionStatus` and `lastFailureInfo`. The CRD has the fields that we set, closed;
KServe's own has hundreds more.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubeapi import KubeApi
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

GROUP, KIND = "serving.kserve.io", "InferenceService"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SIZE = {"type": "object", "additionalProperties": TEXT}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


MODEL = closed(
    modelFormat=closed(name=TEXT, version=TEXT) | {"required": ["name"]},
    protocolVersion=TEXT,
    storageUri=TEXT,
    runtime=TEXT,
    resources=closed(requests=SIZE, limits=SIZE),
)
PREDICTOR = closed(minReplicas=NUMBER, maxReplicas=NUMBER, serviceAccountName=TEXT, timeout=NUMBER, model=MODEL)
SCHEMA = closed(apiVersion=TEXT, kind=TEXT, metadata={"type": "object"}, spec=closed(predictor=PREDICTOR), status=FREE)
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"inferenceservices.{GROUP}"},
    "spec": {
        "group": GROUP,
        "names": {"kind": KIND, "plural": "inferenceservices", "singular": "inferenceservice"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": SCHEMA},
            }
        ],
    },
}  # fmt: skip


class KServe:
    """The controller: `outcomes` says by the last word of a model's address what becomes of it."""

    def __init__(self, api: KubeApi, outcomes: Mapping[str, str]) -> None:
        self.outcomes = dict(outcomes)  #: "ready" (default), "fails", "hangs", "unseen" (no Deployment is shown)
        self._admin = api.admin()
        self._services = _installed(api)
        self._deployments = self._admin.resources.get(api_version="apps/v1", kind="Deployment")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(DynamicApiError):  # changed under our hands: the next look sees it
                for item in self._services.get().items:
                    self._reconcile(item.to_dict())

    def _reconcile(self, service: dict[str, Any]) -> None:
        uri = service["spec"]["predictor"]["model"]["storageUri"]
        outcome = self.outcomes.get(uri.rpartition("/")[2], "ready")
        before = service.get("status") or {}
        seen = before.get("kfpTest") == [service["metadata"]["generation"], outcome]
        if seen:
            return
        generation = 0 if outcome == "unseen" else self._roll_out(service, uri, done=outcome == "ready")
        status = _status(service, before, outcome) | {"observedGeneration": generation}
        status["kfpTest"] = [service["metadata"]["generation"], outcome]
        body = {**service, "status": status}
        self._services.status.replace(body=body, namespace=service["metadata"]["namespace"])

    def _roll_out(self, service: dict[str, Any], uri: str, *, done: bool) -> int:
        name, namespace = f"{service['metadata']['name']}-predictor", service["metadata"]["namespace"]
        labels = {f"{GROUP}/inferenceservice": service["metadata"]["name"]}
        template = {
            "metadata": {"labels": labels, "annotations": {SOURCE: uri}},
            "spec": {"containers": [{"name": "kserve-container", "image": "mlserver"}]},
        }
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
        made = self._admin.server_side_apply(
            self._deployments, body=body, namespace=namespace, field_manager="kserve", force_conflicts=True
        ).to_dict()
        counts = {"replicas": 1 if done else 2, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1}
        made["status"] = counts | {"observedGeneration": made["metadata"]["generation"]}
        self._deployments.status.replace(body=made, namespace=namespace)
        return int(made["metadata"]["generation"])

    @contextmanager
    def playing(self) -> Iterator["KServe"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(timeout=10)


def _installed(api: KubeApi) -> Any:
    """The kind, once the server offers it: it accepts a CRD some time before that."""
    api.apply(CRD)
    for _ in range(100):
        with contextlib.suppress(ResourceNotFoundError):
            return api.admin().resources.get(api_version=f"{GROUP}/v1beta1", kind=KIND)
        time.sleep(0.1)
    raise TimeoutError(f"{KIND} is not offered 10 s after its CRD was accepted")


def _status(service: dict[str, Any], before: dict[str, Any], outcome: str) -> dict[str, Any]:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    url = {"url": f"http://{name}.{namespace}.example.org"}
    if outcome in ("ready", "unseen"):
        ready = {"conditions": _conditions("True"), "modelStatus": {"transitionStatus": "UpToDate"}}
        return url | ready
    old = before.get("conditions") or _conditions("Unknown")
    if outcome == "hangs":
        return {"conditions": old, "modelStatus": {"transitionStatus": "InProgress"}}
    failure = {"reason": "ModelLoadFailed", "message": "no module named 'model'"}
    blocked = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
    return {"conditions": old, "modelStatus": blocked}


def _conditions(status: str) -> list[dict[str, str]]:
    when = {"lastTransitionTime": "2026-11-21T00:00:00Z"}
    return [{"type": kind, "status": status, **when} for kind in ("PredictorReady", "IngressReady", "Ready")]
