"""What runs say of models: checked at the door, kept once, told as gauges and by the read API."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import READ_TOKEN, Spoken
from sqlalchemy import insert
from world import World

from service.flow.observe import MAX_COLUMNS, observations_of
from service.flow.record import record
from service.records import Query
from service.store.database import micros
from service.store.tables import promotion
from triggers.event import rfc3339

Drop = Callable[..., str]
COLUMN = {
    "test": "ks", "psi": 0.4, "statistic": 0.3, "p_value": 0.0, "missing": 0.01, "reference_missing": 0.0, "rows": 900
}  # fmt: skip
DRIFT = {
    "kind": "drift",
    "model": "income-classifier",
    "version": 3,
    "as_of": "2026-11-21T07:00:00Z",
    "subject": "s3://predictions/a.parquet",
    "rows": 1000,
    "coverage": 0.9,
    "columns": {"age": COLUMN, "(score)": COLUMN | {"psi": 0.05}},
    "figures": {},
}
LABELS = ("model", "version", "feature", "measure", "kind")
NOW = datetime(2026, 11, 21, 7, tzinfo=UTC)
QUALITY = DRIFT | {"kind": "quality", "subject": "s3://labels/a.parquet", "figures": {"accuracy": 0.8, "auc": 0.9}}


@pytest.fixture
def ran(world: World, drop: Drop) -> Callable[..., str]:
    """A run that reports these facts and is recorded; its key."""

    def run(name: str, **facts: Any) -> str:
        drop(f"incoming/{name}.csv", eTag=name, request=name)
        world.answer()
        made = world.store.runs.list(Query())[0]
        report = {"run": {"facets": {"kfpTriggers_report": {"rows": 100, **facts}}}}
        world.objects.put(f"{made.report_uri}/write_data.json", json.dumps(report).encode())
        world.backend.end()
        world.later(60)
        return made.run_key

    return run


def gauges(world: World) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(Spoken(world.app).get("/metrics").text):
        for sample in family.samples:
            if "model" in sample.labels:
                name = sample.name.removeprefix("kfp_triggers_")
                labels = tuple(sample.labels[label] for label in LABELS if label in sample.labels)
                found.setdefault(name, {})[labels] = sample.value
    return found


def moved(world: World, before: int, after: int, state: str = "done", alias: str = "champion") -> None:
    """An alias was moved, as the audit log has it."""
    at = micros(world.clock.now())
    row = {"id": f"{at:026}", "model": "income-classifier", "alias": alias, "state": state, "figures": {}}
    with world.store.database.write() as connection:
        connection.execute(
            insert(promotion).values(
                row | {"from_version": before, "to_version": after, "created_at": at, "ended_at": at}
            )
        )


def test_a_recorded_run_leaves_its_observation_and_its_other_facts_stay_with_the_run(world: World, ran: Any) -> None:
    run_key = ran("a", observation=DRIFT)

    (found,) = world.store.observations.list(Query())
    assert (found.run_key, found.kind, found.model, found.version, found.rows) == (
        run_key, "drift", "income-classifier", 3, 1000
    )  # fmt: skip
    assert found.figures == {"coverage": 0.9, "columns": DRIFT["columns"], "columns_left_out": 0}
    assert world.store.runs.get(run_key).outputs["reports"] == {"write_data.json": {"rows": 100}}


def test_a_run_that_is_recorded_twice_is_observed_once(world: World, ran: Any) -> None:
    run_key = ran("a", observations=[QUALITY, QUALITY | {"version": 4}])
    found = world.store.observations.list(Query())

    record(world.app, world.store.runs.get(run_key))  # as after a kill between the two

    assert world.store.observations.list(Query()) == found
    assert [one.version for one in found] == [4, 3]


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param({"kind": "mood"}, id="another kind"),
        pytest.param({"version": "3"}, id="version as text"),
        pytest.param({"version": True}, id="version as truth value"),
        pytest.param({"version": 2**40}, id="version too large"),
        pytest.param({"rows": -1}, id="fewer than no rows"),
        pytest.param({"model": ""}, id="no model"),
        pytest.param({"model": "m" * 201}, id="long model"),
        pytest.param({"model": "in\ncome"}, id="line end in a name"),
        pytest.param({"model": "in\ud800come"}, id="half a letter"),
        pytest.param({"as_of": "yesterday"}, id="no time"),
        pytest.param({"as_of": "2026-11-21T07:00:00"}, id="time without offset"),
        pytest.param({"as_of": "2026-11-23T07:00:00Z"}, id="time to come"),
        pytest.param({"as_of": "0001-01-01T00:00:00+14:00"}, id="time that is none in UTC"),
        pytest.param({"as_of": "1969-12-31T23:59:59Z"}, id="time before 1970"),
        pytest.param({"coverage": 1.5}, id="coverage above one"),
        pytest.param({"coverage": float("nan")}, id="coverage not a number"),
        pytest.param({"subject": 5}, id="subject no text"),
        pytest.param({"columns": [COLUMN]}, id="columns as a list"),
        pytest.param({"columns": {"age": COLUMN | {"psi": float("inf")}}}, id="infinite figure"),
        pytest.param({"columns": {"age": COLUMN | {"test": "guess"}}}, id="unknown test"),
        pytest.param({"columns": {"age": {"psi": 0.1}}}, id="figures missing"),
        pytest.param({"columns": {"\x1b[2J": COLUMN}}, id="control character in a feature"),
    ],
)
def test_what_is_no_observation_is_passed_over(edited: dict[str, Any]) -> None:
    facts = {"observation": DRIFT | edited, "observations": [QUALITY]}

    found = list(observations_of(facts, "k", NOW))

    assert [one.kind for one in found] == ["quality"]


@pytest.mark.parametrize("told", [{"observation": 5}, {"observations": 5}, {"observation": None}, {}], ids=str)
def test_facts_of_another_shape_hold_no_observation(told: dict[str, Any]) -> None:
    assert list(observations_of(told, "k", NOW)) == []


def test_of_too_many_columns_the_scores_and_the_most_moved_are_kept() -> None:
    columns = {f"f{number}": COLUMN | {"psi": number / 1000} for number in range(MAX_COLUMNS + 50)}
    told = DRIFT | {"columns": columns | {"(score)": COLUMN | {"psi": 0.0}}}

    (found,) = observations_of({"observation": told}, "k", NOW)

    assert len(found.figures["columns"]) == MAX_COLUMNS
    assert found.figures["columns_left_out"] == 51
    assert {"(score)", "f249"} < set(found.figures["columns"])
    assert "f0" not in found.figures["columns"]


def test_the_gauges_are_of_the_newest_observation_of_each_model(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT | {"as_of": "2026-11-21T06:00:00Z"})
    ran("b", observation=DRIFT | {"version": 4, "columns": {"age": COLUMN | {"psi": 0.02}}})
    ran("old", observation=DRIFT | {"version": 2, "as_of": "2026-11-20T06:00:00Z"})
    ran("labels", observation=QUALITY)
    ran("other", observation=DRIFT | {"model": "churn", "version": 1, "columns": {}})

    found = gauges(world)

    assert found["feature_drift"] == {
        ("income-classifier", "4", "age", measure): value
        for measure, value in {"psi": 0.02, "statistic": 0.3, "missing": 0.01, "rows": 900}.items()
    }
    assert found["scoring_coverage"] == {("income-classifier", "4"): 0.9, ("churn", "1"): 0.9}
    assert found["scoring_rows"] == {("income-classifier", "4"): 1000, ("churn", "1"): 1000}
    assert found["model_quality"] == {
        ("income-classifier", "3", "accuracy"): 0.8, ("income-classifier", "3", "auc"): 0.9
    }  # fmt: skip
    assert set(found["observed_at_seconds"]) == {
        ("income-classifier", "drift"), ("income-classifier", "quality"), ("churn", "drift")
    }  # fmt: skip


@pytest.mark.parametrize("few", [{"rows": 220}, {"rows": 5000, "coverage": 0.003}, {"coverage": 0.0}])
def test_a_file_of_which_too_little_was_counted_ends_no_drift_and_begins_none(
    world: World, ran: Any, few: dict[str, Any]
) -> None:
    column = COLUMN | {"psi": 2.2, "rows": 15}
    ran("first", observation=DRIFT | few | {"as_of": "2026-11-21T05:00:00Z", "columns": {"age": column}})
    assert "feature_drift" not in gauges(world)

    ran("drifted", observation=DRIFT | {"as_of": "2026-11-21T06:00:00Z"})
    ran("few", observation=DRIFT | few | {"columns": {"age": column}})

    found = gauges(world)
    assert found["feature_drift"]["income-classifier", "3", "age", "psi"] == 0.4
    assert found["scoring_coverage"] == {("income-classifier", "3"): few.get("coverage", 0.9)}


def test_the_time_told_is_when_it_was_recorded_however_old_the_file(world: World, ran: Any) -> None:
    before = world.clock.now()
    ran("a", observation=DRIFT | {"as_of": "2026-10-01T00:00:00Z"})

    (at,) = gauges(world)["observed_at_seconds"].values()

    assert at == (before + timedelta(seconds=60)).timestamp()


def test_a_version_that_a_promotion_replaced_is_told_no_more(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT)
    moved(world, 3, 4, state="refused")
    assert "feature_drift" in gauges(world)

    world.clock.forward(1)
    moved(world, 3, 4)

    assert set(gauges(world)) == {"observed_at_seconds"}
    ran("late labels", observation=QUALITY)
    assert "model_quality" not in gauges(world)
    world.clock.forward(1)
    moved(world, 4, 3)
    assert {"feature_drift", "model_quality"} < set(gauges(world))


def test_a_refused_candidate_that_was_scored_once_is_not_told_in_place_of_the_replaced_version(
    world: World, ran: Any
) -> None:
    ran("shadow", observation=DRIFT | {"version": 2})
    moved(world, 1, 2, state="refused")
    world.clock.forward(1)
    assert "feature_drift" in gauges(world)  # of a model without a log

    moved(world, 1, 3)

    assert set(gauges(world)) == {"observed_at_seconds"}


def test_a_replaced_version_that_files_are_scored_with_again_is_in_use(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT | {"version": 2})
    moved(world, 2, 3)
    for name, version in (("b", 3), ("c", 2)):  # in between the alias was moved back in MLflow's own pages
        world.clock.forward(60)
        ran(name, observation=DRIFT | {"version": version, "as_of": rfc3339(world.clock.now())})
        assert set(gauges(world)["scoring_rows"]) == {("income-classifier", str(version))}


def test_a_version_that_another_alias_stands_for_is_in_use(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT)
    for before, after, alias in ((0, 3, "champion"), (0, 3, "challenger"), (3, 4, "challenger")):
        world.clock.forward(1)
        moved(world, before, after, alias=alias)

    assert "feature_drift" in gauges(world)


def test_a_model_of_which_nothing_comes_any_more_goes(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT)
    assert gauges(world)

    world.clock.forward(41 * 24 * 3600)

    assert gauges(world) == {}


def test_without_the_store_nothing_is_told_of_models(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT)
    assert gauges(world)
    with world.store.database.engine.connect() as connection:
        connection.exec_driver_sql("drop table observation")
        connection.commit()

    assert gauges(world) == {}


def test_the_read_api_lists_observations_by_model_kind_and_version(world: World, ran: Any) -> None:
    ran("a", observation=DRIFT)
    ran("b", observation=DRIFT | {"version": 4})
    ran("c", observation=QUALITY | {"model": "churn"})
    client = Spoken(world.app)

    def asked(**params: Any) -> list[tuple[str, int]]:
        answer = client.get(
            "/api/v1/observations", headers={"authorization": f"Bearer {READ_TOKEN}"}, params=params
        ).json()
        assert ("next" in answer) == ("limit" in params)
        return [(one["model"], one["version"]) for one in answer["items"]]

    assert asked() == [("churn", 3), ("income-classifier", 4), ("income-classifier", 3)]
    assert asked(limit=1) == [("churn", 3)]
    assert asked(model="churn") == asked(kind="quality") == [("churn", 3)]
    assert asked(model="income-classifier", version=4) == [("income-classifier", 4)]
    assert asked(kind="mood") == []
