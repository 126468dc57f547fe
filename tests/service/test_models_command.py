"""`kfp-triggers models` on a real MLflow server: who wins, what a killed process leaves, what a person reads."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from command import ROOT, Shell
from fakes import FakeClock
from mlflow import MlflowClient
from mlflow.webhooks.types import EVENT_TO_PAYLOAD_CLASS
from served import READ_TOKEN, Spoken, served
from ulid import ULID
from world import SOURCES, TOKEN, World

from service import embedded
from service.flow.promote import promote
from service.flow.sweep import sweep
from service.records import Promotion, PromotionState, Query
from service.settings import MlflowSettings, load
from service.supervise import Supervisor
from service.tracking import MlflowRegistry
from service.wiring import opened
from triggers.event import Delivery
from triggers.reason import Reason
from triggers.sources import SOURCES as TYPES

DYING = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dying import Dying
from service.commands.promotions import _asked
from service.flow.promote import promote
from service.settings import load
from service.wiring import opened
from triggers.reason import Reason

home, model, after = Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "after"
with opened(load(home), rings=False) as app:
    app.registry.warm()
    dying = replace(app, registry=Dying(app.registry, "set_alias", after=after))
    promote(dying, _asked(app, (model, "champion", 1, 2), "promote", Reason.BY_PERSON, ""))
"""


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that may post to this machine. Nothing here stores an artifact: its bucket is never asked."""
    home = tmp_path_factory.mktemp("mlflow")
    with Supervisor(home, print) as supervisor:
        ports = embedded.ports(home, ("minio", "mlflow"))
        process = embedded.mlflow(home, ports["mlflow"], embedded.s3(home, ports["minio"], {}), "mlflow")
        here = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
        here |= {"MLFLOW_WEBHOOK_CACHE_TTL": "0"}  # it keeps for a minute that there was no webhook
        supervisor.start(replace(process, env=dict(process.env) | here))
        yield f"http://{embedded.HOST}:{ports['mlflow']}"


@pytest.fixture(scope="module")
def client(mlflow_uri: str) -> MlflowClient:
    return MlflowClient(mlflow_uri)


@pytest.fixture
def model(client: MlflowClient) -> str:
    """A model of the test's own with four versions, the first of them champion."""
    name = f"income-{str(ULID())[-8:].lower()}"
    client.create_registered_model(name)
    for number in range(1, 5):
        run = client.create_run("0")
        client.log_metric(run.info.run_id, "accuracy", 0.8 + number / 100)
        tags = {"commit": f"{number}" * 40, "data_window_start": "2026-10-01T00:00:00Z", "run_key": f"key-{number}"}
        client.create_model_version(name, f"s3://mlflow/{number}", run.info.run_id, tags=tags)
    client.set_registered_model_alias(name, "champion", "1")
    return name


@pytest.fixture
def shell(world: World, mlflow_uri: str, model: str, monkeypatch: pytest.MonkeyPatch) -> Shell:
    registry = f"  registry: {{type: mlflow, secrets: [{{file: uploads.token}}], models: [{model}]}}\n"
    (world.home / "sources.yaml").write_text(SOURCES + registry)
    world.rules("apiVersion: kfp-triggers/v1\nrules: {}\n")
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    monkeypatch.setenv("KFP_TRIGGERS_MLFLOW__TRACKING_URI", mlflow_uri)
    return Shell()


@pytest.fixture
def asked(world: World, model: str) -> str:
    """A run's verdict that waits for a person: version 2 instead of 1; its id."""
    item = Promotion(
        id=str(ULID()),
        model=model,
        alias="champion",
        from_version=1,
        to_version=2,
        action="promote",
        state=PromotionState.ASKED,
        reason=Reason.GATE_ASKS,
        detail="accuracy is 0.01 better",
        by="rule train",
        run_key="key-2",
        created_at=world.clock.now(),
    )
    assert promote(world.app, item) is not None
    return item.id


def champion(client: MlflowClient, model: str) -> int:
    return int(client.get_model_version_by_alias(model, "champion").version)


def test_of_two_processes_that_promote_at_once_one_wins_and_the_other_is_told(
    shell: Shell, world: World, client: MlflowClient, model: str
) -> None:
    argv = [sys.executable, "-m", "service", "models", "promote", model]
    both = [
        subprocess.Popen(
            [*argv, version, "--expect", "1"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for version in ("2", "3")
    ]
    said = [one.communicate(timeout=120) for one in both]
    assert sorted(one.returncode for one in both) == [0, 1], said
    won = 2 if both[0].returncode == 0 else 3
    told = said[1 if won == 2 else 0][1]
    assert champion(client, model) == won
    assert f"the champion is {won} now" in told or f"is under way, to {won}" in told
    assert sorted(str(one.state) for one in world.store.promotions.list(Query(), model)) == ["done", "lost"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_process_killed_around_the_setting_leaves_a_move_that_the_sweep_ends(
    shell: Shell, world: World, client: MlflowClient, model: str, point: str
) -> None:
    argv = [sys.executable, "-c", DYING, str(ROOT / "tests"), str(world.home), model, point]
    killed = subprocess.run(argv, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -9, killed.stderr
    assert champion(client, model) == (2 if point == "after" else 1)
    late = shell.run("models", "promote", model, "3", "--expect", "1", status=1)
    assert "is under way, to 2" in late.err or "the champion is 2 now" in late.err
    with opened(load(world.home), rings=False) as app:
        sweep(replace(app, clock=FakeClock(datetime.now(UTC) + timedelta(minutes=1))))
    assert champion(client, model) == 2
    done = world.store.promotions.done(model, "champion")
    assert [(one.from_version, one.to_version) for one in done] == [(1, 2)]


def test_a_promotion_and_its_rollback_are_in_the_log_and_in_the_lineage(
    shell: Shell, client: MlflowClient, model: str
) -> None:
    made = shell.json("models", "promote", model, "3", "--reason", "tried on Monday's file")
    assert (made["from_version"], made["to_version"], made["state"]) == (1, 3, "done")
    back = shell.json("models", "rollback", model, "--reason", "too slow")
    assert (back["from_version"], back["to_version"], champion(client, model)) == (3, 1, 1)
    shown = shell.json("models", "show", model)
    assert shown["aliases"] == {"champion": 1}
    assert [(one["action"], one["detail"]) for one in shown["promotions"]] == [
        ("rollback", "too slow"),
        ("promote", "tried on Monday's file"),
    ]
    assert all(one["by"] for one in shown["promotions"])
    lineage = shell.run("lineage", "show", f"models:/{model}/3").out
    assert f"became champion in promotion:{made['id']}" in lineage
    assert f"gave way in promotion:{back['id']}" in lineage


def test_there_is_nothing_to_roll_back_to_before_the_first_promotion(shell: Shell, model: str) -> None:
    said = shell.run("models", "rollback", model, status=1)
    assert f"the log knows no version that 1 took {model}@champion from; name one with --to" in said.err
    assert shell.json("models", "rollback", model, "--to", "2")["to_version"] == 2


def test_a_model_is_shown_with_its_figures_its_commits_and_its_log(shell: Shell, model: str) -> None:
    shell.run("models", "promote", model, "4")
    found = shell.json("models", "show", model, "--limit", "2")
    assert [(one["version"], one["aliases"]) for one in found["versions"]] == [(4, ["champion"]), (3, [])]
    assert found["versions"][0]["figures"] == pytest.approx({"accuracy": 0.84})
    assert found["versions"][0]["window"]["start"] == "2026-10-01T00:00:00Z"
    said = shell.run("models", "show", model).out
    for word in ("champion", "444444444444", "accuracy 0.84", "champion 1 → 4", "by_person", "key-4"):
        assert word in said


def test_what_waits_for_a_person_is_listed_and_approved(
    shell: Shell, client: MlflowClient, model: str, asked: str
) -> None:
    assert asked in shell.run("models", "list").out
    assert [one["id"] for one in shell.json("models", "list")["waiting"]] == [asked]
    assert any("1 wait for a person" in one["detail"] for one in shell.json("doctor", status=1)["items"])
    ended = shell.json("models", "approve", asked, "--reason", "looks good")
    assert (ended["state"], ended["reason"], champion(client, model)) == ("done", "approved", 2)
    assert ended["detail"] == "accuracy is 0.01 better; looks good"
    assert "waits for nobody: it is done" in shell.run("models", "approve", asked, status=1).err


def test_what_waits_for_a_person_is_rejected(shell: Shell, client: MlflowClient, model: str, asked: str) -> None:
    assert "stays where it is" in shell.run("models", "reject", asked, "--reason", "no").out
    assert champion(client, model) == 1
    assert f"rejected in promotion:{asked}" in shell.run("lineage", "show", f"models:/{model}/2").out


def test_the_read_api_shows_the_log(shell: Shell, world: World, model: str, asked: str) -> None:
    api, bearer = Spoken(world.app), {"authorization": f"Bearer {READ_TOKEN}"}
    found = api.get(f"/api/v1/promotions?model={model}&state=asked", headers=bearer).json()
    assert [one["id"] for one in found["items"]] == [asked]
    assert api.get("/api/v1/promotions?model=other", headers=bearer).json() == {"items": []}
    assert api.get(f"/api/v1/promotions/{asked}", headers=bearer).json() == found["items"][0]
    assert api.get("/api/v1/promotions/none", headers=bearer).status_code == 404
    assert api.get("/api/v1/promotions").status_code == 401


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["promote", "MODEL", "99"], 1, "not found"),
        (["promote", "MODEL", "1"], 1, "is 1 already"),
        (["promote", "MODEL", "2", "--expect", "7"], 1, "the champion is 1 now, the move was asked for with 7 there"),
        (["promote", "MODEL", "2", "--alias", "a b"], 1, "alias"),
        (["promote", "nobody", "2"], 1, "nobody"),
        (["show", "nobody"], 1, "nobody"),
        (["rollback", "MODEL", "--to", "1"], 1, "is 1 already"),
        (["rollback", "MODEL", "--alias", "shadow"], 1, "has no shadow"),
        (["approve", "none"], 1, "there is no promotion none"),
        (["promote", "MODEL", "0"], 2, "version"),
    ],
)
def test_what_cannot_be_done_says_why(shell: Shell, model: str, args: list[str], status: int, said: str) -> None:
    asked = [model if word == "MODEL" else word for word in args]
    assert said in shell.run("models", *asked, status=status).err


def test_a_registry_that_is_away_is_another_status(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_MLFLOW__TRACKING_URI", f"http://{embedded.HOST}:9")
    assert "registry" in shell.run("models", "list", status=3).err


def test_without_a_registry_nothing_was_begun_and_nothing_is_said_of_it(
    shell: Shell, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_MLFLOW__TRACKING_URI", f"http://{embedded.HOST}:9")
    away = "the model registry at KFP_TRIGGERS_MLFLOW__TRACKING_URI does not answer"
    assert shell.run("models", "promote", model, "2", status=3).err.strip().endswith(away)
    monkeypatch.delenv("KFP_TRIGGERS_MLFLOW__TRACKING_URI")
    none = "no model registry is configured: set KFP_TRIGGERS_MLFLOW__TRACKING_URI"
    assert shell.run("models", "promote", model, "2", status=3).err.strip().endswith(none)


def test_a_move_is_one_event_whether_we_make_it_or_the_registry_tells_of_it(
    shell: Shell, world: World, client: MlflowClient, mlflow_uri: str, model: str
) -> None:
    world.clock.at = datetime.now(UTC)
    app = replace(world.app, registry=MlflowRegistry(MlflowSettings(tracking_uri=mlflow_uri)))

    def told(count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 20
        while True:
            deliveries = world.store.events.deliveries(Query(source="registry"))
            if len(deliveries) >= count or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return [dict(one.event.data) for one in world.store.events.list(Query(source="registry"))]

    with served(app) as port:
        url = f"http://{embedded.HOST}:{port}/hooks/registry"
        hook = client.create_webhook("kfp-triggers", url, ["model_version_alias.created"], secret=TOKEN)
        try:
            shell.run("models", "promote", model, "2")
            (ours,) = told(2)  # our own word and the webhook's
            assert (ours["version"], ours["previous"], ours["promotion"] != "") == (2, 1, True)
            client.set_registered_model_alias(model, "champion", "3")
            latest = told(3)[0]
            assert (latest["version"], latest["promotion"]) == (3, "")
        finally:
            client.delete_webhook(hook.webhook_id)


def test_every_event_of_mlflow_is_known() -> None:
    kind = TYPES["mlflow"]
    config = kind.config.model_validate({"models": ["m"]})
    now = datetime(2026, 11, 21, tzinfo=UTC)
    data = {"name": "m", "alias": "champion", "version": "1"}
    for entity, action in EVENT_TO_PAYLOAD_CLASS:
        sent = {"entity": entity.value, "action": action.value, "timestamp": now.isoformat(), "data": data}
        delivery = Delivery(source="registry", headers={}, body=json.dumps(sent).encode(), received_at=now)
        assert [one.verdict for one in kind.read(config, delivery).events] != ["quarantined"]
