"""The Kubernetes API that InferenceServices live in: read, applied by the server, restored. Called by deploy.py.

In a pod by its service account, elsewhere by KUBECONFIG. What the API refuses is said in the words of whoever gave
the rights.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.config import ConfigException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic import exceptions as refused
from urllib3.exceptions import HTTPError

from pipelines.components.deploy_model.manifest import API, KIND, MANAGER, Manifest
from pipelines.components.deploy_model.rollout import OF_SERVICE
from pipelines.errors import PipelineError

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TOO_MANY, SERVER = 429, 500
INSTALL = "is KServe installed? https://kserve.github.io/website/docs/install"


class Unanswered(PipelineError):
    """The API gave no answer, or one that another time may be another: nothing is known of what was asked about."""


class Cluster:
    """The InferenceServices of one namespace."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        with self._explained("list", "API resources"):
            self.namespace = namespace or _own_namespace()
            self._dynamic = DynamicClient(client.ApiClient(_configuration()))
            self._services = self._dynamic.resources.get(api_version=API, kind=KIND)
            self._deployments = self._dynamic.resources.get(api_version="apps/v1", kind="Deployment")

    def read(self, name: str) -> Manifest | None:
        """The InferenceService as it is, None when there is none."""
        with self._explained("get", "inferenceservices"):
            try:
                found: Manifest = self._services.get(name=name, namespace=self.namespace).to_dict()
            except refused.NotFoundError:
                return None
        return found

    def apply(self, manifest: Manifest, *, force: bool) -> None:
        """Server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/."""
        with self._explained("patch", "inferenceservices"):
            self._dynamic.server_side_apply(
                self._services,
                body=manifest,
                name=manifest["metadata"]["name"],
                namespace=self.namespace,
                field_manager=MANAGER,
                force_conflicts=force,
            )

    def delete(self, name: str) -> None:
        """Takes it away."""
        with self._explained("delete", "inferenceservices"):
            self._services.delete(name=name, namespace=self.namespace)

    def deployments(self, name: str) -> Sequence[Manifest]:
        """What KServe made for it; none when they may not be seen."""
        with self._explained("list", "deployments"):
            try:
                found = self._deployments.get(namespace=self.namespace, label_selector=f"{OF_SERVICE}={name}")
            except refused.ForbiddenError:
                return ()
        return [item.to_dict() for item in found.items]

    @contextmanager
    def _explained(self, verb: str, what: str) -> Iterator[None]:
        try:
            yield
        except refused.ResourceNotFoundError as error:
            raise PipelineError(f"this cluster has no {KIND} of {API}: {INSTALL}") from error
        except refused.NotFoundError as error:  # no such namespace; or, after an earlier discovery, no such kind
            known = "namespaces" in (said := _message(error))
            raise PipelineError(said if known else f"this cluster has no {KIND} of {API}: {INSTALL}") from error
        except refused.ConflictError as error:
            raise PipelineError(
                f"others set the same fields of the {KIND}: {_message(error)}. "
                "Let them give these up, or pass force=true to take them over"
            ) from error
        except refused.ForbiddenError as error:
            raise PipelineError(
                f"the step's service account may not {verb} {what} in namespace {self.namespace}: "
                f"deploy/kubernetes/serving has the role that it needs ({_message(error)})"
            ) from error
        except refused.UnauthorizedError as error:
            raise PipelineError("the Kubernetes API does not accept the step's credentials") from error
        except refused.DynamicApiError as error:
            kind = Unanswered if error.status == TOO_MANY or error.status >= SERVER else PipelineError
            raise kind(f"the Kubernetes API refuses to {verb} {what}: {_message(error)}") from error
        except ConfigException as error:
            raise PipelineError("no cluster to serve on: the step is in no pod and has no KUBECONFIG") from error
        except HTTPError as error:
            raise Unanswered(f"the Kubernetes API does not answer: {type(error).__name__}") from error


def _configuration() -> client.Configuration:
    made = client.Configuration()
    if os.environ.get("KUBERNETES_SERVICE_HOST") and POD.exists():
        config.load_incluster_config(client_configuration=made)
    else:
        config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=made)
    made.retries = 3
    return made


def _own_namespace() -> str:
    if POD.exists():
        return POD.read_text().strip()
    _, current = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    return str(current["context"].get("namespace", "default"))


def _message(error: Any) -> str:
    try:
        return " ".join(str(json.loads(error.body)["message"]).split())[:500]
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
