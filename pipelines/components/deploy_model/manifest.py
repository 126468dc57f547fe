"""The InferenceService that serves a version of a model, as it is applied. Pure; called by deploy.py.

KServe's `serving.kserve.io/v1beta1`: https://kserve.github.io/website/docs/reference/crd-api. The format `mlflow` is
served by its MLServer runtime, which speaks protocol v2.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from pipelines.errors import PipelineError

API, KIND = "serving.kserve.io/v1beta1", "InferenceService"
MANAGER = "kfp-triggers"
MODEL, RUN_KEY, APPLIED = "kfp-triggers.io/model", "kfp-triggers.io/run-key", "kfp-triggers.io/applied"
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be served, where, and how large."""

    service: str
    namespace: str
    model: str  #: `models:/name/version`
    storage_uri: str
    run_key: str
    runtime: str = ""  #: "": KServe chooses one that knows the format
    service_account: str = ""  #: with the secret of the object store
    min_replicas: int = 1
    max_replicas: int = 0  #: 0: KServe's own choice
    cpu: str = ""  #: request and limit, such as 500m
    memory: str = ""


def inference_service(wanted: Wanted) -> Manifest:
    """The manifest. It carries itself as an annotation: what a later roll-back applies again."""
    if len(wanted.service) > 50 or not DNS_LABEL.fullmatch(wanted.service):
        raise PipelineError(
            f"service_name {wanted.service[:80]!r} is no name for a service: at most 50 lower-case letters, digits, "
            "hyphens, beginning with a letter"
        )
    if wanted.min_replicas < 0 or 0 < wanted.max_replicas < wanted.min_replicas:
        raise PipelineError(f"min_replicas {wanted.min_replicas} and max_replicas {wanted.max_replicas} do not fit")
    model: Manifest = {"modelFormat": {"name": "mlflow"}, "protocolVersion": "v2", "storageUri": wanted.storage_uri}
    if wanted.runtime:
        model["runtime"] = wanted.runtime
    if size := {name: value for name, value in (("cpu", wanted.cpu), ("memory", wanted.memory)) if value}:
        model["resources"] = {"requests": size, "limits": size}
    predictor: Manifest = {"minReplicas": wanted.min_replicas, "model": model}
    if wanted.max_replicas:
        predictor["maxReplicas"] = wanted.max_replicas
    if wanted.service_account:
        predictor["serviceAccountName"] = wanted.service_account
    annotations = {MODEL: wanted.model, RUN_KEY: wanted.run_key}
    manifest = {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {
            "name": wanted.service,
            "namespace": wanted.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": annotations,
        },
        "spec": {"predictor": predictor},
    }
    annotations[APPLIED] = json.dumps(manifest, sort_keys=True)
    return manifest


def earlier(found: Manifest) -> Manifest:
    """What brings an InferenceService back to what it is now: what we applied, else its whole spec as it stands."""
    metadata = found["metadata"]
    if text := metadata.get("annotations", {}).get(APPLIED):
        applied: Manifest = json.loads(text)
        applied["metadata"]["annotations"][APPLIED] = text
        return applied
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": found["spec"],
    }
