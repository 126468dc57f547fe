"""`kfp-triggers drift show`: what a person sees of a model that is watched, and what a script gets."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from command import Shell
from world import World

from service.commands.drift import spark
from service.records import Observation, Query

COLUMN = {
    "test": "ks", "psi": 0.01, "statistic": 0.02, "p_value": 0.5, "missing": 0.01, "reference_missing": 0.0, "rows": 99
}  # fmt: skip


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    return Shell()


@pytest.fixture
def observed(world: World, drop: Callable[..., str]) -> Callable[..., None]:
    """An observation of another run, an hour later than the one before."""

    def observe(kind: str, version: int, **figures: Any) -> None:
        name = str(world.clock.now().timestamp())
        drop(f"incoming/{name}.csv", eTag=name, request=name)
        world.answer()
        world.clock.forward(3600)
        made = Observation(
            run_key=world.store.runs.list(Query())[0].run_key, kind=kind, model="income-classifier", version=version,
            as_of=world.clock.now() - timedelta(minutes=5), subject="s3://predictions/week-07.parquet", rows=2_000,
            figures={"coverage": 0.995, "columns_left_out": 0} | figures, created_at=world.clock.now(),
        )  # fmt: skip
        world.store.observations.add([made])

    return observe


@pytest.fixture
def three_weeks(observed: Callable[..., None]) -> None:
    """A feature that drifts, and its model replaced."""
    for version, psi in ((3, 0.01), (3, 4.5), (4, 0.12)):
        hours = COLUMN | {"psi": psi, "statistic": 0.5}
        observed("drift", version, columns={"hours_per_week": hours, "(score)": COLUMN | {"test": "chi2"}})
    for accuracy in (0.85, 0.71):
        observed("quality", 3, measures={"accuracy": accuracy, "rows": 1_500})


def test_a_model_is_shown_with_every_feature_now_and_over_time(shell: Shell, three_weeks: None) -> None:
    shown = shell.run("drift", "show", "income-classifier").out

    assert "income-classifier version 4, as of 2026-11-21 09:55:00: 2,000 rows" in shown
    assert "the last 3 observations, of versions 3 to 4" in shown
    assert "coverage 99.5 %  ███\n" in shown
    (hours,) = [line.split() for line in shown.splitlines() if line.startswith("hours_per_week")]
    assert hours == ["hours_per_week", "ks", "0.500", "0.120", "!", "1.0", "%", "0.0", "%", "▁█▂"]
    (accuracy,) = [line.split() for line in shown.splitlines() if line.startswith("accuracy")]
    assert accuracy == ["accuracy", "0.710", "0.710", "0.850", "█▁"]
    assert max(map(len, shown.splitlines())) <= 100


def test_one_version_and_the_last_few(shell: Shell, three_weeks: None) -> None:
    shown = shell.run("drift", "show", "income-classifier", "--version", "3", "--last", "1").out

    assert "income-classifier version 3, as of 2026-11-21 08:55:00" in shown
    (hours,) = [line.split() for line in shown.splitlines() if line.startswith("hours_per_week")]
    assert hours[3:5] == ["4.500", "!!"]


def test_every_model_in_one_line(shell: Shell, three_weeks: None) -> None:
    shown = shell.run("drift", "show").out.splitlines()

    assert next(line for line in shown if line.startswith("income-classifier")).split() == [
        "income-classifier", "4", "2026-11-21", "09:55:00", "0.120", "!", "hours_per_week", "99.5", "%", "0.710"
    ]  # fmt: skip


def test_a_document_has_what_the_store_has(shell: Shell, three_weeks: None, world: World) -> None:
    found = shell.json("drift", "show", "income-classifier")
    assert [one["version"] for one in found["drift"]] == [3, 3, 4]
    assert found["quality"][-1]["figures"]["measures"] == {"accuracy": 0.71, "rows": 1_500}
    assert found["drift"][0]["as_of"] == "2026-11-21T07:55:00.000000Z"
    (item,) = shell.json("drift", "show")["items"]
    assert (item["model"], item["drift"][0]["version"]) == ("income-classifier", 4)


def test_without_any_observation_it_says_what_makes_one(shell: Shell) -> None:
    assert "a run of income-batch-inference observes drift" in shell.run("drift", "show").out
    assert shell.json("drift", "show") == {"items": []}
    assert "nothing is observed of churn" in shell.run("drift", "show", "churn", status=1).err


def test_a_version_that_was_never_observed_is_said_to_be_so(shell: Shell, three_weeks: None) -> None:
    said = shell.run("drift", "show", "income-classifier", "--version", "9", status=1).err

    assert "nothing is observed of version 9 of income-classifier" in said


@pytest.mark.parametrize(
    ("values", "low", "high", "line"),
    [
        pytest.param([0, 0.25, 0.5, 9], 0.0, 0.5, "▁▅██", id="cut off above"),
        pytest.param([-1, None, 0.1], 0.0, 0.5, "▁·▂", id="not known, and below"),
        pytest.param([0.7, 0.7], 0.7, 0.7, "▁▁", id="all the same"),
        pytest.param([], 0.0, 1.0, "", id="none"),
    ],
)
def test_a_line_of_blocks(values: list[float | None], low: float, high: float, line: str) -> None:
    assert spark(values, low, high) == line
