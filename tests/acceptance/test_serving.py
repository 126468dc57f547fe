"""A promotion on the command line becomes a served model: the shipped rule, kfp.local, a real Kubernetes API."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scene
from kserve import KServe
from kubeapi import KubeApi, kube_api

from service.settings import LocalSettings
from service.supervise import Supervisor
from service.up import Stack, Wanted, bring_up

ROOT = Path(__file__).parents[2]
SOURCES = "apiVersion: kfp-triggers/v1\nsources: {registry: {type: mlflow, models: [income-classifier], auth: none}}\n"

REGISTER = """
import mlflow
from sklearn.linear_model import LogisticRegression
fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
for _ in range(2):
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            fitted, name="m", registered_model_name="income-classifier", pip_requirements=["mlflow"]
        )
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    with kube_api(tmp_path_factory.mktemp("kube")) as running:
        running.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
        yield running


@pytest.fixture(scope="module")
def stack(api: KubeApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A home with the shipped rule; its runs see the cluster."""
    home = tmp_path_factory.mktemp("serving") / "home"
    (home / "rules").mkdir(parents=True)
    (home / "sources.yaml").write_text(SOURCES)
    rule = (ROOT / "deploy/rules/serving.yaml").read_text()
    (home / "rules/serving.yaml").write_text(
        rule.replace("      params:\n", "      params:\n        serving_bucket: serving\n")
    )
    scene.run(sys.executable, "-m", "pipelines.compile", str(home / "packages"))
    allowed = json.dumps([*LocalSettings().env, "KUBECONFIG"])
    env = {"KUBECONFIG": str(api.kubeconfig("team")), "KFP_TRIGGERS_LOCAL__ENV": allowed}
    wanted = Wanted(
        minio=True, mlflow=True, buckets=("serving",), port=0, env=env | {"KFP_TRIGGERS_PACE__WATCH": "0.5"}
    )
    with Supervisor(home / "data", print) as supervisor:
        yield bring_up(supervisor, wanted)


@pytest.fixture(scope="module")
def versions(stack: Stack) -> None:
    """Two versions of a model, and no champion."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": stack.mlflow}
    subprocess.run([sys.executable, "-c", REGISTER], env=environment, check=True, capture_output=True)


def models(stack: Stack, *argv: str) -> tuple[str, int]:
    command = [sys.executable, "-m", "service.cli", "--home", str(stack.home), "models", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, done.returncode


def served(api: KubeApi) -> str:
    """The model that the InferenceService says it serves."""
    services = api.admin().resources.get(api_version="serving.kserve.io/v1beta1", kind="InferenceService")
    found: list[Any] = services.get(namespace="team").to_dict()["items"]
    return str(found[0]["metadata"]["annotations"]["kfp-triggers.io/model"]) if found else ""


@pytest.mark.usefixtures("versions")
def test_what_is_promoted_is_served_and_what_is_rolled_back_is_served_again(api: KubeApi, stack: Stack) -> None:
    demo = scene.Demo(stack=stack, bare=stack.home, clone=stack.home, now=None)  # type: ignore[arg-type]
    with KServe(api, {}).playing():
        for count, (argv, version) in enumerate(
            [(("promote", "income-classifier", "1"), 1), (("promote", "income-classifier", "2"), 2),
             (("rollback", "income-classifier"), 1)], 1
        ):  # fmt: skip
            said, code = models(stack, *argv)
            assert code == 0, said
            run = demo.finished("serve-champion", count)
            assert served(api) == f"models:/income-classifier/{version}"
            assert run["outputs"]["parameters"]["url"] == "http://income-classifier.team.example.org"
    lineage = demo.get("lineage", uri="models:/income-classifier/2")
    assert "kserve:team/income-classifier" in {edge["target"] for edge in lineage["downstream"]}
    shown = json.loads(models(stack, "show", "income-classifier", "--json")[0])
    assert shown["aliases"] == {"champion": 1}
