"""`deploy/kubernetes`: whatever a manifest mentions is there or said to be made; settings, probes and rules are real.

The manifests are read as they stand, without kustomize: what it would add is only names and hashes.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfpserver import kfp_stub
from served import Spoken

from service.kubeflow import KubeflowBackend
from service.settings import BackendSettings, load
from service.store.database import Database
from service.store.migrate import upgrade
from service.web.server import OPEN
from service.wiring import opened, rulebook
from triggers.sourcefile import load_sources

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
README = (FOLDER / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HOME = re.findall(r"KFP_TRIGGERS_HOME=(\S+)", DOCKERFILE)[-1]
HOMES = [FOLDER / "base/home", FOLDER / "overlays/example/service"]
TOKEN = "/var/run/secrets/kubeflow/pipelines"
#: Kubernetes' kinds and kustomize's own.
VERSIONS = {
    "Deployment": "apps/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Kustomization": "kustomize.config.k8s.io/v1beta1",
    "Component": "kustomize.config.k8s.io/v1alpha1",
} | dict.fromkeys(("ServiceAccount", "Service", "PersistentVolumeClaim"), "v1")


NAMES = {"kfp-triggers", "kfp-triggers-data", "kfp-triggers-serving"}


def documents(file: Path) -> list[Any]:
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


KUSTOMIZATIONS = {file.parent: documents(file)[0] for file in FOLDER.rglob("kustomization.yaml")}
OWN = [file for file in FOLDER.rglob("*.yaml") if file.name not in {"sources.yaml", "rules.yaml"}]
OBJECTS = [one for file in OWN if file.name != "kustomization.yaml" for one in documents(file)]
(BASE,) = documents(FOLDER / "base/deployment.yaml")
(WORKER,) = documents(FOLDER / "components/worker/worker.yaml")
POD = BASE["spec"]["template"]["spec"]
BESIDE = WORKER["spec"]["template"]["spec"]["containers"]
CONTAINERS = [*POD["initContainers"], *POD["containers"], *BESIDE]
OURS = [one for one in CONTAINERS if one.get("image") == "kfp-triggers"]


def names(kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in OBJECTS if one["kind"] == kind}


def config_maps() -> dict[str, dict[str, Path]]:
    """The generated ones of the base: a file's name to its path."""
    base = FOLDER / "base"
    generated = KUSTOMIZATIONS[base]["configMapGenerator"]
    return {one["name"]: {Path(file).name: base / file for file in one["files"]} for one in generated}


def test_every_document_has_its_version_kind_and_name() -> None:
    for file in OWN:
        for one in documents(file):
            assert one["apiVersion"] == VERSIONS[one["kind"]], file
            named = one.get("metadata", {}).get("name")
            assert file.name == "kustomization.yaml" or named in NAMES, file


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: str(folder.relative_to(FOLDER)))
def test_what_a_kustomization_names_is_there(folder: Path) -> None:
    told = KUSTOMIZATIONS[folder]
    for path in [*told.get("resources", ()), *told.get("components", ())]:
        found = (folder / path).resolve()
        assert found.is_file() or found in KUSTOMIZATIONS, path
    for one in told.get("configMapGenerator", ()):
        assert all((folder / file).is_file() for file in one["files"])
        assert folder.name == "base" or (one["behavior"], one["name"] in config_maps()) == ("replace", True)
    assert all((folder / one["path"]).is_file() for one in told.get("patches", ()))


def test_no_manifest_lies_about_unused() -> None:
    used = {
        (folder / path).resolve()
        for folder, told in KUSTOMIZATIONS.items()
        for path in [
            *told.get("resources", ()),
            *(one["path"] for one in told.get("patches", ())),
            *(file for one in told.get("configMapGenerator", ()) for file in one["files"]),
        ]
    }
    files = {
        file for file in FOLDER.rglob("*") if file.is_file() and file.name not in {"README.md", "kustomization.yaml"}
    }
    assert files <= used


def test_the_overlay_replaces_every_file_of_the_base() -> None:
    replaced = KUSTOMIZATIONS[FOLDER / "overlays/example/service"]["configMapGenerator"]
    assert {one["name"]: set(one["files"]) for one in replaced} == {
        name: set(files) for name, files in config_maps().items()
    }


def test_every_volume_is_of_something_that_is_there_or_that_the_readme_says_to_make() -> None:
    mentioned: dict[str, set[str]] = {"configMap": set(), "secret": set(), "persistentVolumeClaim": set()}
    for volume in POD["volumes"]:
        for kind, found in volume.items():
            if kind in mentioned:
                mentioned[kind].add(found.get("name") or found.get("secretName") or found.get("claimName"))
    assert mentioned["configMap"] == set(config_maps())
    assert mentioned["persistentVolumeClaim"] == names("PersistentVolumeClaim")
    assert all(f"The secret `{name}`" in README for name in mentioned["secret"])
    assert all(f"create secret generic {name}" in README for name in mentioned["secret"])
    assert {POD["serviceAccountName"]} == names("ServiceAccount")
    volumes = {one["name"] for one in POD["volumes"]}
    mounted = {mount["name"] for one in CONTAINERS for mount in one.get("volumeMounts", ())}
    assert mounted == volumes


def test_a_mounted_file_is_one_of_its_config_map() -> None:
    of_volume = {one["name"]: one["configMap"]["name"] for one in POD["volumes"] if "configMap" in one}
    for container in OURS:
        for mount in container["volumeMounts"]:
            if path := mount.get("subPath"):
                assert path in config_maps()[of_volume[mount["name"]]]
                assert mount["mountPath"] == f"{HOME}/{path}"


def test_the_service_leads_to_the_pod_and_the_door_is_open() -> None:
    (service,) = [one for one in OBJECTS if one["kind"] == "Service"]
    (api,) = POD["containers"]
    ports = {port["name"]: port["containerPort"] for port in api["ports"]}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == list(ports)
    assert ports == {"http": load().api.port}
    assert KUSTOMIZATIONS[FOLDER / "base"]["labels"][0]["includeSelectors"]
    for where in (f"USER {POD['securityContext']['runAsUser']}", "KFP_TRIGGERS_API__HOST=0.0.0.0"):
        assert where in DOCKERFILE


def test_probes_ask_what_answers_without_a_token(home: Path) -> None:
    (api,) = POD["containers"]
    probes = {api[name]["httpGet"]["path"] for name in api if name.endswith("Probe")}
    assert probes == {"/healthz", "/readyz"} <= OPEN
    settings = load(home)
    upgrade(Database(settings.store))
    with opened(settings, rings=False) as app:
        door = Spoken(app)
        assert {path: door.get(path).status_code for path in probes} == dict.fromkeys(probes, 200)


@pytest.mark.parametrize("container", OURS, ids=lambda one: one["name"])
@pytest.mark.parametrize("home_files", HOMES, ids=lambda one: one.name)
def test_the_variables_and_files_of_a_container_are_settings(
    container: Any, home_files: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is no setting is refused by `load`, as in the pod. Secrets are of the secret's documented keys."""
    for one in container.get("env", ()):
        value = one["value"]
        if one["name"].endswith("_FILE"):
            key = value.removeprefix(f"{HOME}/secrets/")
            assert f"`{key}`" in README
            assert f"--from-literal={key}=" in README
            value = str(home / key)
            Path(value).write_text("secret-of-the-test\n")
        monkeypatch.setenv(one["name"], value)
    text = (home_files / "settings.toml").read_text()
    (home / "settings.toml").write_text(text)
    settings = load(home)
    assert settings.backends["default"].service_account
    assert set(tomllib.loads(text)) <= {"backends", "objects", "mlflow"}


@pytest.mark.parametrize("container", [one for one in CONTAINERS if "image" in one], ids=lambda one: one["name"])
def test_a_container_may_do_nothing_but_its_work(container: Any) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}


def test_the_pod_is_alone_on_its_volume_and_no_user_of_kubernetes() -> None:
    assert (BASE["spec"]["replicas"], BASE["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert (POD["automountServiceAccountToken"], POD["enableServiceLinks"]) == (False, False)
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (token,) = [one["projected"]["sources"] for one in POD["volumes"] if "projected" in one]
    assert [one["serviceAccountToken"]["audience"] for one in token] == ["pipelines.kubeflow.org"]
    assert {mount["mountPath"] for one in OURS for mount in one["volumeMounts"] if mount["name"] == "kfp-token"} == {
        TOKEN
    }


def test_kubernetes_own_variables_of_our_service_are_no_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A pod with service links has them, as soon as a Service is named after us."""
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP_ADDR"):
        monkeypatch.setenv(f"KFP_TRIGGERS_{name}", "10.0.0.1")
    load(home)


def test_the_role_is_bound_to_the_account_by_its_name() -> None:
    bindings = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == "RoleBinding"}
    assert {one["roleRef"]["name"] for one in bindings.values()} == names("Role") == set(bindings)
    binding = bindings["kfp-triggers"]
    (subject,) = binding["subjects"]
    overlay = KUSTOMIZATIONS[FOLDER / "overlays/example/service"]
    assert (subject["kind"], {subject["name"]}) == ("ServiceAccount", names("ServiceAccount"))
    assert subject["namespace"] == overlay["namespace"]


def test_the_profile_of_the_example_is_the_one_that_its_backend_uses() -> None:
    profile = KUSTOMIZATIONS[FOLDER / "overlays/example/profile"]["namespace"]
    settings = tomllib.loads((FOLDER / "overlays/example/service/settings.toml").read_text())
    assert {one["namespace"] for one in settings["backends"].values()} == {profile}


def test_every_image_of_the_example_has_a_version() -> None:
    images = KUSTOMIZATIONS[FOLDER / "overlays/example/service"]["images"]
    assert {one["name"] for one in images} == {one["image"] for one in CONTAINERS if "image" in one}
    assert all(re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?", str(one["newTag"])) for one in images)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that has the shipped pipelines as v1."""
    packages = tmp_path_factory.mktemp("packages")
    subprocess.run([sys.executable, "-m", "pipelines.compile", str(packages)], check=True, capture_output=True)
    with kfp_stub(tmp_path_factory.mktemp("stub")) as started:
        backend = KubeflowBackend("default", BackendSettings(endpoint=started.url))
        for package in packages.iterdir():
            backend.push(package.name.removesuffix("@v1.yaml"), "v1", package.read_bytes())
        yield started.url


@pytest.mark.parametrize("home_files", HOMES, ids=lambda one: one.name)
def test_sources_and_rules_load_against_the_shipped_pipelines(
    home_files: Path, home: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__DEFAULT__ENDPOINT", server)
    texts = {"sources.yaml": (home_files / "sources.yaml").read_text()}
    texts["rules/rules.yaml"] = (home_files / "rules.yaml").read_text()
    assert set(load_sources(texts["sources.yaml"], "")) == {"uploads"}
    _, rules, warnings = rulebook(load(home)).check(texts)
    assert len(rules.rules) == (0 if home_files.name == "home" else 1)
    assert warnings == []
    assert re.findall(r"\{file: secrets/(\S+)}", texts["sources.yaml"]) == ["uploads"]


def test_the_readme_s_links_lead_somewhere_and_its_folders_exist() -> None:
    for target in re.findall(r"]\(([^)#]+)", README):
        assert (FOLDER / target).exists(), target
    for folder in re.findall(r"^\| `(\S+)/` \|", README, re.MULTILINE):
        assert (FOLDER / folder / "kustomization.yaml").exists()
    for manifest in re.findall(r"deploy/kubernetes/[a-z/]+", README):
        assert (ROOT / manifest / "kustomization.yaml").exists()
