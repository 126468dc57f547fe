"""The whole service as processes on real parts: once for each kind of backend, for all tests here.

MinIO, Redis, MLflow and Alertmanager are the real ones; the pipelines are the shipped ones. On `local` they run for the
demo's people, with a champion that was trained so; on `kfp` the stub KFP API server stands for a cluster, the runs'
outcomes are scripted and the champion is put there. The pace is scaled down so that recovery can be waited for. The
store is SQLite's; `brought_up` puts it on a PostgreSQL of its own for who asks for it.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import postgres
import pytest
import scene
from kfpserver import Stub, kfp_stub
from mlflow import MlflowClient

from service.embedded import Grouping
from service.supervise import Supervisor
from service.up import Wanted, bring_up

PACE = {
    "KFP_TRIGGERS_PACE__LEASE": "4",
    "KFP_TRIGGERS_PACE__SWEEP": "1",
    "KFP_TRIGGERS_PACE__TAKEOVER": "2",
    "KFP_TRIGGERS_PACE__WATCH": "0.5",
    "KFP_TRIGGERS_LOG__FORMAT": "json",
}


ECHO = """\
apiVersion: kfp-triggers/v1
rules:
  echo:
    trigger: {source: uploads, event: object.created, bucket: inbox}
    run: {pipeline: echo@v1, params: {uri: "${event.object}", size: "${event.size}"}}
"""


class Running(scene.Demo):
    """The demo's world, with the supervisor at hand."""

    supervisor: Supervisor
    champion_run: str
    stub: Stub | None
    postgres: postgres.Server | None

    def executions(self, run_key: str) -> int:
        """How often a run's pipeline was begun, as the one who executes it counts."""
        if self.stub is not None:
            return int(self.stub.counts()["executed_keys"].get(run_key, 0))
        return len(list((self.stack.home / "data" / "runs" / run_key / "root").iterdir()))


@pytest.fixture(scope="session", params=["local", "kfp"])
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    with brought_up(tmp_path_factory.mktemp("stack"), request.param) as world:
        yield world


@contextmanager
def brought_up(folder: Path, backend: str, *, on_postgres: bool = False) -> Iterator[Running]:
    """All of it in this folder."""
    home = folder / "home"
    bare, clone = scene.prepare(home)
    sources = home / "sources.yaml"
    sources.write_text(sources.read_text().replace("[user-ids]", "[user-ids, inbox]"))
    (home / "rules" / "echo.yaml").write_text(ECHO)
    scene.run(sys.executable, str(Path(__file__).with_name("echo.py")), str(home / "packages" / "echo@v1.yaml"))
    wanted = Wanted(
        minio=True, mlflow=True, alertmanager=Grouping("0s", "1s", "2s"), buckets=scene.BUCKETS, port=0, env=PACE
    )
    with ExitStack() as parts:
        server = parts.enter_context(postgres.server()) if on_postgres else None
        store = server.url("postgres") if server else ""
        stub = parts.enter_context(on_kfp(folder, home, store)) if backend == "kfp" else None
        supervisor = parts.enter_context(Supervisor(home / "data", print))
        stack = bring_up(supervisor, wanted)
        now = datetime.now(UTC) - timedelta(seconds=1)
        world = Running(stack=stack, bare=bare, clone=clone, now=now)
        world.supervisor, world.stub, world.postgres = supervisor, stub, server
        scene.configure_hook(world)
        if stub is None:
            scene.people(world)
        scene.push(world, "v1", "Logistic regression")
        world.champion_run = world.finished("retrain-on-push", 1)["run_key"]
        if stub is not None:
            crown(world)
        yield world


@contextmanager
def on_kfp(folder: Path, home: Path, store: str) -> Iterator[Stub]:
    """The default backend is the stub, which has the pipelines; runs take long enough to be met in the middle."""
    with kfp_stub(folder, "--pending", "0.3", "--running", "2") as stub:
        settings = f'[backends.default]\nendpoint = "{stub.url}"\ntimeout = 2.0\nrate = 50\n[store]\nurl = "{store}"\n'
        (home / "settings.toml").write_text(settings)
        argv = [sys.executable, "-m", "service.cli", "--home", str(home), "pipelines", "push"]
        scene.run(*argv, "--wait", "--version", "v1", str(home / "packages"))
        for package in (home / "packages").iterdir():
            package.unlink()
        yield stub


def crown(world: Running) -> None:
    """A champion, as the training that was not executed would have made one."""
    client = MlflowClient(world.stack.mlflow)
    client.create_registered_model("income-classifier")
    client.create_model_version("income-classifier", "s3://models/champion")
    client.set_registered_model_alias("income-classifier", "champion", 1)
