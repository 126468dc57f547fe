"""deploy_model on a real Kubernetes API; KServe's controller is played by `kserve.py`."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from kserve import KServe
from kubeapi import KubeApi, kube_api, manifests
from kubernetes.client import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError, api_exception
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipelines.components.deploy_model import deploy as deployment
from pipelines.components.deploy_model import rollout
from pipelines.components.deploy_model.cluster import Cluster
from pipelines.components.deploy_model.deploy import Patience, deploy
from pipelines.components.deploy_model.location import storage_uri, superseded
from pipelines.components.deploy_model.manifest import Wanted, inference_service
from pipelines.errors import PipelineError
from pipelines.report import Step

ROLE = Path(__file__).parents[2] / "deploy/kubernetes/serving/rbac.yaml"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    with kube_api(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture
def namespace(api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace of its own, and this process set to it as an administrator."""
    name = f"team-{secrets.token_hex(4)}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(name)))
    monkeypatch.setattr(deployment, "EVERY", 0.1)
    monkeypatch.setattr(rollout, "SEEN_AFTER", 1.0)
    return name


@pytest.fixture
def kserve(api: KubeApi, namespace: str) -> Iterator[KServe]:
    outcomes = {"broken": "fails", "slow": "hangs", "serverless": "unseen"}
    with KServe(api, outcomes).playing() as playing:
        yield playing


def wanted(namespace: str, which: str, **more: Any) -> Wanted:
    told = {"service": "income", "model": f"models:/income/{which}", "storage_uri": f"s3://models/income/{which}"}
    return Wanted(namespace=namespace, run_key=f"run-{which}", **told, **more)


def put(which: Wanted, *, timeout: float = 20, force: bool = False) -> tuple[str, Step]:
    step = Step("income-deploy.deploy_model", which.run_key, "")
    return deploy(Cluster(which.namespace), which, Patience(timeout, force), step), step


def served(api: KubeApi, namespace: str, name: str = "income") -> dict[str, Any] | None:
    services = api.admin().resources.get(api_version="serving.kserve.io/v1beta1", kind="InferenceService")
    try:
        found: dict[str, Any] = services.get(name=name, namespace=namespace).to_dict()
    except NotFoundError:
        return None
    return found


def uri_of(api: KubeApi, namespace: str) -> str:
    found = served(api, namespace)
    return str(found["spec"]["predictor"]["model"]["storageUri"]) if found else ""


@pytest.mark.usefixtures("kserve")
class TestWithKServe:
    def test_a_version_is_served_and_the_next_one_replaces_it(self, api: KubeApi, namespace: str) -> None:
        put(wanted(namespace, "1"))

        url, step = put(wanted(namespace, "2", min_replicas=2, cpu="500m", memory="1Gi", service_account="models"))

        assert url == f"http://income.{namespace}.example.org"
        assert uri_of(api, namespace) == "s3://models/income/2"
        assert step.facts == {"model": "models:/income/2", "before": "models:/income/1", "url": url}
        assert [(item.namespace, item.name) for item in step.outputs] == [(f"kserve:{namespace}", "income")]

    def test_the_same_again_changes_nothing(self, api: KubeApi, namespace: str) -> None:
        put(wanted(namespace, "1"))
        before = served(api, namespace)

        put(wanted(namespace, "1"))

        after = served(api, namespace)
        assert before is not None
        assert after is not None
        assert after["metadata"]["generation"] == before["metadata"]["generation"]

    def test_ready_pods_of_the_old_version_are_not_taken_for_the_new_one(self, api: KubeApi, namespace: str) -> None:
        put(wanted(namespace, "1"))

        with pytest.raises(PipelineError, match="not ready within 2 s: the new pods are not all ready"):
            put(wanted(namespace, "slow"), timeout=2)

        assert uri_of(api, namespace) == "s3://models/income/1"

    def test_a_version_that_cannot_be_loaded_is_rolled_back(
        self, api: KubeApi, namespace: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        put(wanted(namespace, "1", min_replicas=2))

        with pytest.raises(PipelineError, match="cannot serve models:/income/broken: ModelLoadFailed: no module"):
            put(wanted(namespace, "broken"))

        found = served(api, namespace)
        assert found is not None
        assert found["spec"]["predictor"]["model"]["storageUri"] == "s3://models/income/1"
        assert found["spec"]["predictor"]["minReplicas"] == 2
        assert found["metadata"]["annotations"]["kfp-triggers.io/model"] == "models:/income/1"
        assert "rolled back to models:/income/1" in capsys.readouterr().out

    def test_a_first_version_that_fails_leaves_nothing(self, api: KubeApi, namespace: str) -> None:
        with pytest.raises(PipelineError, match="ModelLoadFailed"):
            put(wanted(namespace, "broken"))

        assert served(api, namespace) is None

    def test_where_no_deployment_is_seen_ready_counts_after_a_while(self, namespace: str) -> None:
        url, _ = put(wanted(namespace, "serverless", min_replicas=0))

        assert url

    def test_an_api_that_gives_no_answer_for_a_while_rolls_nothing_back(
        self, api: KubeApi, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, request = [], DynamicClient.request

        def sometimes(self: DynamicClient, method: str, path: str, *rest: Any, **more: Any) -> Any:
            if method == "get" and path.endswith("/inferenceservices/income") and namespace in path:
                asked.append(path)
                if len(asked) in (2, 3):  # the first is the look before anything is applied
                    raise api_exception(ApiException(status=503, reason="Service Unavailable"))
            return request(self, method, path, *rest, **more)

        monkeypatch.setattr(DynamicClient, "request", sometimes)

        url, _ = put(wanted(namespace, "1"))

        assert url
        assert uri_of(api, namespace) == "s3://models/income/1"

    def test_fields_of_another_manager_are_a_conflict_unless_forced(self, api: KubeApi, namespace: str) -> None:
        api.apply(inference_service(wanted(namespace, "theirs")))

        with pytest.raises(PipelineError, match=r"others set the same fields.*admin.*force=true"):
            put(wanted(namespace, "1"))
        put(wanted(namespace, "1"), force=True)

        assert uri_of(api, namespace) == "s3://models/income/1"

    def test_what_another_made_is_put_back_as_it_was(self, api: KubeApi, namespace: str) -> None:
        theirs = inference_service(wanted(namespace, "theirs"))
        theirs["spec"]["predictor"]["timeout"] = 30
        del theirs["metadata"]["annotations"]
        api.apply(theirs)

        with pytest.raises(PipelineError, match="ModelLoadFailed"):
            put(wanted(namespace, "broken"), force=True)

        found = served(api, namespace)
        assert found is not None
        assert found["spec"]["predictor"]["timeout"] == 30
        assert uri_of(api, namespace) == "s3://models/income/theirs"

    def test_the_shipped_role_is_enough_and_without_it_the_missing_right_is_named(
        self, api: KubeApi, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "pipeline-runner"}}
        account["metadata"] |= {"namespace": namespace}  # type: ignore[operator]
        api.apply(account)
        token = api.token_of(namespace, "pipeline-runner")
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(namespace, token)))

        with pytest.raises(PipelineError, match=f"may not get inferenceservices in namespace {namespace}"):
            put(wanted(namespace, "1"))
        api.apply(*(in_namespace(one, namespace) for one in manifests(ROLE)))
        url, _ = put(wanted(namespace, "1"))

        assert url


def in_namespace(one: dict[str, Any], namespace: str) -> dict[str, Any]:
    """As kustomize's `namespace:` does."""
    one["metadata"]["namespace"] = namespace
    for subject in one.get("subjects", ()):
        subject["namespace"] = namespace
    return one


def test_without_the_crd_the_error_says_how_to_get_kserve(api: KubeApi, namespace: str) -> None:
    crds = api.admin().resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    for item in crds.get().items:
        crds.delete(name=item.metadata.name)
    for _ in range(100):
        if not crds.get().items:
            break
        time.sleep(0.1)

    with pytest.raises(PipelineError, match=r"no InferenceService of serving\.kserve\.io/v1beta1: is KServe installed"):
        put(wanted(namespace, "1"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"service": "Income_Model"}, "is no name for a service"),
        ({"service": "x" * 60}, "is no name for a service"),
        ({"min_replicas": 3, "max_replicas": 2}, "do not fit"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_applied(more: dict[str, Any], said: str) -> None:
    told = {"service": "income", "namespace": "n", "model": "models:/m/1", "storage_uri": "s3://b/m", "run_key": "r"}

    with pytest.raises(PipelineError, match=said):
        inference_service(Wanted(**(told | more)))


@pytest.mark.parametrize("seconds", [0, 3_600])
def test_a_time_out_that_the_step_does_not_outlive_is_refused(seconds: int) -> None:
    with pytest.raises(PipelineError, match="must lie within 3300"):
        Patience(seconds)


def test_without_a_cluster_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    with pytest.raises(PipelineError, match="no cluster to serve on"):
        Cluster()


@pytest.fixture(scope="module")
def registered(mlflow_uri: str) -> str:
    """A model with two versions behind an MLflow server that hands artifacts on; the second is champion."""
    mlflow.set_tracking_uri(mlflow_uri)
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    for _ in range(2):
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                fitted, name="m", registered_model_name="served", pip_requirements=["scikit-learn"]
            )
    MlflowClient().set_registered_model_alias("served", "champion", "2")
    return "served"


@pytest.mark.usefixtures("storage_env")
class TestWhereAModelLies:
    def test_files_behind_mlflows_own_server_are_copied_for_kserve(
        self, minio: Any, bucket: str, registered: str
    ) -> None:
        step = Step("income-deploy.deploy_model", "run-1", "")

        uri = storage_uri(registered, 1, bucket, step)

        keys = {item.object_name for item in minio.client.list_objects(bucket, recursive=True)}
        assert uri == f"s3://{bucket}/served/1"
        assert {"served/1/MLmodel", "served/1/requirements.txt"} <= keys
        assert [(item.namespace, item.name) for item in step.inputs] == [("models:", "served/1")]

    def test_without_a_bucket_for_them_the_error_says_what_to_name(self, registered: str) -> None:
        with pytest.raises(PipelineError, match="mlflow-artifacts:, which KServe cannot pull from: name a bucket"):
            storage_uri(registered, 1, "", Step("j.s", "k", ""))

    def test_an_unknown_version_is_named(self, registered: str) -> None:
        with pytest.raises(PipelineError, match="models:/served/9"):
            storage_uri(registered, 9, "", Step("j.s", "k", ""))

    @pytest.mark.parametrize(("version", "alias", "later"), [(1, "champion", 2), (2, "champion", 0), (1, "", 0)])
    def test_a_version_is_superseded_when_its_alias_has_moved_on(
        self, registered: str, version: int, alias: str, later: int
    ) -> None:
        assert superseded(registered, version, alias) == later
