"""The whole service as processes on real parts, with the demo's people and a trained champion: once for all tests here.

MinIO, Redis, MLflow and Alertmanager are the real ones; the pipelines are the shipped ones. The pace is scaled down so
that recovery can be waited for.
"""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from service.embedded import Grouping
from service.supervise import Supervisor
from service.up import Wanted, bring_up

ROOT = Path(__file__).parents[2]
PACE = {
    "KFP_TRIGGERS_PACE__LEASE": "4",
    "KFP_TRIGGERS_PACE__SWEEP": "1",
    "KFP_TRIGGERS_PACE__TAKEOVER": "2",
    "KFP_TRIGGERS_PACE__WATCH": "0.5",
    "KFP_TRIGGERS_LOG__FORMAT": "json",
}


def load(path: Path) -> ModuleType:
    """A script of the demo as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


demo = load(ROOT / "deploy" / "demo" / "demo.py")


class Running(demo.Demo):  # type: ignore[misc, name-defined]
    """The demo's world, with the supervisor at hand."""

    supervisor: Supervisor
    champion_run: str


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("stack") / "home"
    bare, clone = demo.prepare(home)
    wanted = Wanted(
        minio=True, mlflow=True, alertmanager=Grouping("0s", "1s", "2s"), buckets=demo.BUCKETS, port=0, env=PACE
    )
    with Supervisor(home / "data", print) as supervisor:
        stack = bring_up(supervisor, wanted)
        now = datetime.now(UTC) - timedelta(seconds=1)
        world = Running(stack=stack, bare=bare, clone=clone, data=demo._load("data"), now=now)
        world.supervisor = supervisor
        demo.configure_hook(world)
        demo.people(world)
        demo.push(world, "v1", "Logistic regression")
        world.champion_run = world.finished("retrain-on-push", 1)["run_key"]
        yield world
