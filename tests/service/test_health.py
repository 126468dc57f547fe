"""`/healthz`, `/readyz`, `/metrics`: what a probe and a Prometheus are told."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from served import Spoken
from world import RULES, SOURCES, World

from service.flow.reconcile import reconcile
from service.lifecycle import State
from service.records import EventState, Query
from service.settings import BrokerSettings
from service.web import health

Drop = Callable[..., str]
#: Every metric of ours with its labels: the page that dashboards and alerts are written from.
METRICS = {
    "kfp_triggers_adoption_seconds": {"backend", "le"},
    "kfp_triggers_answers": {"source", "outcome"},
    "kfp_triggers_doubles": {"backend"},
    "kfp_triggers_broker_up": set(),
    "kfp_triggers_buried": set(),
    "kfp_triggers_dead_letters": {"kind", "action"},
    "kfp_triggers_pruned": {"table"},
    "kfp_triggers_decisions": {"rule", "outcome", "reason"},
    "kfp_triggers_deliveries": {"source", "outcome"},
    "kfp_triggers_events": {"source", "type", "verdict"},
    "kfp_triggers_feature_drift": {"model", "version", "feature", "measure"},
    "kfp_triggers_ingest_seconds": {"source", "le"},
    "kfp_triggers_model_quality": {"model", "version", "measure"},
    "kfp_triggers_observed_at_seconds": {"model", "kind"},
    "kfp_triggers_promotions": {"state"},
    "kfp_triggers_refusals": {"source", "status"},
    "kfp_triggers_rings_lost": set(),
    "kfp_triggers_rows": {"table", "state"},
    "kfp_triggers_rule_given_up": {"rule"},
    "kfp_triggers_rule_problems": set(),
    "kfp_triggers_rules": set(),
    "kfp_triggers_runs_ended": {"rule", "state"},
    "kfp_triggers_scan_ended_at_seconds": {"source", "bucket"},
    "kfp_triggers_scan_failing": {"source", "bucket"},
    "kfp_triggers_scan_found": {"source", "bucket"},
    "kfp_triggers_scan_objects": {"source", "bucket"},
    "kfp_triggers_scan_seconds": {"source", "bucket"},
    "kfp_triggers_scoring_coverage": {"model", "version"},
    "kfp_triggers_scoring_rows": {"model", "version"},
    "kfp_triggers_submissions": {"backend", "outcome"},
    "kfp_triggers_swept": {"step"},
}


@pytest.fixture(autouse=True)
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FRESH", -1.0)


def ready(world: World, broker: str | None = None) -> Any:
    settings = BrokerSettings(url=SecretStr(broker)) if broker else BrokerSettings()
    return Spoken(world.app, broker=settings).get("/readyz")


def break_the_store(world: World) -> None:
    with world.store.database.engine.connect() as connection:
        for table in ("lease", "run"):
            connection.exec_driver_sql(f"drop table {table}")
        connection.commit()


def forge_the_store(world: World) -> None:
    world.store.database.engine.dispose()
    for file in world.home.glob("store.db*"):
        file.write_bytes(b"this is no database at all, whatever its name may say\n" * 100)


def rows(world: World) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(Spoken(world.app).get("/metrics").text)
    return {
        (sample.labels["table"], sample.labels["state"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "kfp_triggers_rows"
    }


def test_a_process_that_answers_lives(world: World) -> None:
    break_the_store(world)
    answer = Spoken(world.app).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_all_well_is_ready(world: World) -> None:
    answer = ready(world)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["store"], found["broker"]) == ("ready", "writes", "none")
    assert found["backends"] == {"default": "fake"}
    rules = found["rules"]
    assert (rules["count"], rules["problems"], rules["loaded_at"]) == (1, [], "2026-11-21T07:00:00.000000Z")
    assert rules["hash"] == world.app.rules.now().rules.hash


def test_broken_rules_are_degraded_and_say_where(world: World) -> None:
    world.app.rules.now()
    world.rules("apiVersion: kfp-triggers/v1\nrules: {score: 5}\n")
    answer = ready(world)
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    (problem,) = answer.json()["rules"]["problems"]
    assert problem.startswith("rules/rules.yaml:2: rules.score")
    assert answer.json()["rules"]["count"] == 1
    world.rules(RULES)
    assert ready(world).json()["status"] == "ready"


def test_a_broker_that_is_away_is_degraded_for_it_is_only_the_doorbell(world: World) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        answer = ready(world, f"redis://:canary-password@127.0.0.1:{nobody.getsockname()[1]}/0")
    assert (answer.status_code, answer.json()["status"], answer.json()["broker"]) == (200, "degraded", "away")
    assert "canary-password" not in answer.text


@pytest.mark.parametrize("problem", [break_the_store, forge_the_store], ids=["no table", "no database"])
def test_a_store_that_does_not_write_is_unready_with_its_words_kept_inside(
    world: World, problem: Callable[[World], None]
) -> None:
    world.app.rules.now()
    problem(world)
    answer = ready(world)
    assert (answer.status_code, answer.json()["status"]) == (503, "unready")
    assert answer.json()["store"] == "does not write"


def test_a_store_that_comes_back_is_ready_again(world: World) -> None:
    world.app.rules.now()
    world.store.database.engine.dispose()
    (world.home / "store.db").rename(world.home / "away.db")
    (world.home / "store.db").mkdir()
    assert ready(world).status_code == 503
    (world.home / "store.db").rmdir()
    (world.home / "away.db").rename(world.home / "store.db")
    assert ready(world).status_code == 200


def test_many_probes_ask_the_store_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FRESH", 60.0)
    client = Spoken(world.app)
    assert client.get("/readyz").json()["status"] == "ready"
    break_the_store(world)
    assert client.get("/readyz").json()["status"] == "ready"


def test_the_metrics_are_these_with_these_labels(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end()
    world.later(1)
    answer = Spoken(world.app).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(answer.text):
        if family.name.startswith("kfp_triggers_"):
            labels = found.setdefault(family.name, set())
            labels.update(*(sample.labels for sample in family.samples))
    assert set(found) == set(METRICS)
    assert {name: labels for name, labels in found.items() if not labels <= METRICS[name]} == {}


def test_no_label_grows_with_what_is_sent(world: World, drop: Drop) -> None:
    drop("incoming/a-key-of-somebody.csv", eTag="etagetag", request="REQUEST1")
    world.answer()
    text = Spoken(world.app).get("/metrics").text
    (run,) = world.store.runs.list(Query())
    for word in (
        "a-key-of-somebody",
        "etagetag",
        "REQUEST1",
        run.run_key,
        run.event_id,
        run.decision_id,
        run.backend_id,
    ):
        assert word not in text


def test_rows_are_told_for_every_state_there_is(world: World) -> None:
    found = rows(world)
    assert {state for table, state in found if table == "run"} == {str(state) for state in State}
    assert {state for table, state in found if table == "event"} == {str(state) for state in EventState}
    assert {state for table, state in found if table == "decision"} == {"run", "wait", "skip"}
    assert set(found.values()) == {0}


def test_a_state_that_no_row_has_any_more_falls_to_nought(world: World, drop: Drop) -> None:
    drop()
    assert rows(world)["event", "accepted"] == 1
    world.answer()
    found = rows(world)
    assert (found["event", "accepted"], found["event", "decided"], found["run", "submitted"]) == (0, 1, 1)
    world.backend.end()
    world.later(1)
    found = rows(world)
    assert (found["run", "submitted"], found["run", "succeeded"]) == (0, 1)


def test_without_the_store_the_rest_of_the_metrics_is_told(world: World, drop: Drop) -> None:
    drop()
    assert rows(world)
    break_the_store(world)
    answer = Spoken(world.app).get("/metrics")
    assert answer.status_code == 200
    assert "kfp_triggers_deliveries_total" in answer.text
    assert rows(world) == {}


def test_scans_are_told_of_by_source_and_bucket(world: World) -> None:
    world.objects.buckets.remove("predictions")
    reconcile(world.app)
    (world.home / "sources.yaml").write_text(SOURCES.replace("[user-ids, predictions]", "[user-ids, predictions, new]"))
    text = Spoken(world.app).get("/metrics").text
    assert 'kfp_triggers_scan_failing{bucket="predictions",source="uploads"} 1.0' in text
    assert 'kfp_triggers_scan_failing{bucket="user-ids",source="uploads"} 0.0' in text
    (ended,) = [one for one in text_string_to_metric_families(text) if one.name == "kfp_triggers_scan_ended_at_seconds"]
    at = {one.labels["bucket"]: one.value for one in ended.samples}
    assert at == {"user-ids": world.clock.now().timestamp(), "predictions": 0}
    assert 'bucket="new"' not in text
