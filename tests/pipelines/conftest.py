"""The real parts that pipelines meet: MinIO, MLflow, a Feast store filled by the demo, KFP's local runner."""

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from minio import Minio

from service import buckets, embedded
from service.embedded import S3
from service.supervise import Supervisor

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

# What a run's process does, as the local backend does it: compiled YAML in, outputs as JSON out.
LOCAL_RUN = """
import json, sys
from kfp import components, local
package, root, params = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pipeline = components.load_component_from_file(package)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
print("OUTPUTS", json.dumps(pipeline(**params).outputs))
"""


@dataclass(frozen=True)
class Storage:
    """A running MinIO."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def client(self) -> Minio:
        host = self.endpoint.partition("://")[2]
        return Minio(endpoint=host, access_key=self.access_key, secret_key=self.secret_key, secure=False)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@dataclass(frozen=True)
class Ran:
    """How one local run ended."""

    code: int
    log: str
    outputs: dict[str, Any]


@dataclass(frozen=True)
class Parts:
    """What runs for all tests of this folder."""

    supervisor: Supervisor
    store: S3
    ports: dict[str, int]


@pytest.fixture(scope="module", autouse=True)
def _registry_of_one_module() -> Iterator[None]:
    """A step is a process of its own; here `mlflow.set_tracking_uri` would hold for every module that follows."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A supervisor with MinIO; what else a test needs is started by its fixture."""
    home = tmp_path_factory.mktemp("parts")
    with Supervisor(home, print) as supervisor:
        ports = embedded.ports(home, ("minio", "mlflow"))
        store = embedded.s3(home, ports["minio"], {})
        supervisor.start(embedded.minio(home, ports["minio"], []))
        yield Parts(supervisor, store, ports)


@pytest.fixture(scope="session")
def minio(parts: Parts) -> Storage:
    """MinIO on a free port, with credentials of its own."""
    return Storage(parts.store.endpoint, parts.store.access_key, parts.store.secret_key)


@pytest.fixture(scope="session")
def mlflow_uri(parts: Parts) -> str:
    """An MLflow server that keeps its artifacts in that MinIO."""
    buckets.make(parts.store, ["mlflow"])
    parts.supervisor.start(embedded.mlflow(parts.supervisor.home, parts.ports["mlflow"], parts.store, "mlflow"))
    return f"http://{embedded.HOST}:{parts.ports['mlflow']}"


@pytest.fixture(scope="session")
def demo() -> ModuleType:
    """deploy/demo/data.py, which is no package."""
    spec = importlib.util.spec_from_file_location("demo_data", ROOT / "deploy/demo/data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_data"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def people(demo: ModuleType) -> Any:
    """A small population at NOW."""
    return demo.Population(now=NOW, size=2_000)


@pytest.fixture(scope="session")
def feature_bucket(minio: Storage, people: Any) -> str:
    """A bucket that the demo's own command has filled with features, labels and a Feast registry."""
    command = ["deploy/demo/data.py", "--bucket", "features", "--people", str(people.size), "--now", NOW.isoformat()]
    environment = os.environ | minio.environment
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return "features"


@pytest.fixture
def storage_env(minio: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """This process sees MinIO as a step does: by its environment."""
    for name, value in minio.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FEAST_S3_ENDPOINT_URL", minio.endpoint)
    return minio


@pytest.fixture
def bucket(minio: Storage) -> str:
    """An empty bucket."""
    name = f"test-{secrets.token_hex(6)}"
    minio.client.make_bucket(name)
    return name


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipelines, by the command that users run; here nothing but its own error ends a step."""
    out = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "pipelines.compile", str(out), "--retries", "0"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture(scope="session")
def run(
    packages: Path, minio: Storage, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, dict[str, Any]], Ran]:
    """Runs a compiled pipeline through kfp.local in a process of its own."""
    environment = os.environ | minio.environment | {"MLFLOW_TRACKING_URI": mlflow_uri}

    def execute(pipeline: str, params: dict[str, Any]) -> Ran:
        root = tmp_path_factory.mktemp("root")
        command = [
            sys.executable,
            "-c",
            LOCAL_RUN,
            str(packages / f"{pipeline}@v1.yaml"),
            str(root),
            json.dumps(params),
        ]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        found = [line for line in done.stdout.splitlines() if line.startswith("OUTPUTS ")]
        return Ran(done.returncode, done.stdout + done.stderr, json.loads(found[-1][8:]) if found else {})

    return execute


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], tuple[str, str]]:
    """Makes a bare Git repository of the given files and says where it is and which commit they are."""
    author = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org"}
    committer = {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}

    def make(files: dict[str, str]) -> tuple[str, str]:
        folder = tmp_path_factory.mktemp("repository")

        def git(*arguments: str) -> str:
            command = ["git", "-c", "init.defaultBranch=main", *arguments]
            environment = os.environ | author | committer
            return subprocess.run(
                command, cwd=folder, env=environment, check=True, capture_output=True, text=True
            ).stdout.strip()

        git("init", "--quiet")
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", "model")
        return str(folder / ".git"), git("rev-parse", "HEAD")

    return make
