"""The whole service as processes on real parts, with the demo's people and a trained champion: once for all tests here.

MinIO, Redis, MLflow and Alertmanager are the real ones; the pipelines are the shipped ones. The pace is scaled down so
that recovery can be waited for.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import scene

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


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("stack") / "home"
    bare, clone = scene.prepare(home)
    sources = home / "sources.yaml"
    sources.write_text(sources.read_text().replace("[user-ids]", "[user-ids, inbox]"))
    (home / "rules" / "echo.yaml").write_text(ECHO)
    scene.run(sys.executable, str(Path(__file__).with_name("echo.py")), str(home / "packages" / "echo@v1.yaml"))
    wanted = Wanted(
        minio=True, mlflow=True, alertmanager=Grouping("0s", "1s", "2s"), buckets=scene.BUCKETS, port=0, env=PACE
    )
    with Supervisor(home / "data", print) as supervisor:
        stack = bring_up(supervisor, wanted)
        now = datetime.now(UTC) - timedelta(seconds=1)
        world = Running(stack=stack, bare=bare, clone=clone, now=now)
        world.supervisor = supervisor
        scene.configure_hook(world)
        scene.people(world)
        scene.push(world, "v1", "Logistic regression")
        world.champion_run = world.finished("retrain-on-push", 1)["run_key"]
        yield world
