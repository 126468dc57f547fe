"""The loop's own pieces, without a stack: the world changes as it says, bounds can be missed, the picture tells all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import picture
import pyarrow.csv as csv
import pytest
from chronicle import Chronicle, Happening, Week
from loop import threshold
from oracle import compare
from pyarrow import BufferReader
from verdict import findings
from weeks import World

from pipelines.drift import drift_of
from pipelines.sketch import Sketch, reference_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
WORLD = World(rows=600, weeks=7, unit_from=3, concept_from=5)
NOT_WATCHED = ("user_id", "event_timestamp")


def psi(world: World, before: int, after: int) -> dict[str, float]:
    """Of each feature of a week, measured as a scoring run does, against another week's."""
    past, now = (world.features(week, NOW).drop_columns(list(NOT_WATCHED)) for week in (before, after))
    sketch = Sketch(reference_of(past, None))
    sketch.add(now, np.full(now.num_rows, 0.5))
    return {name: found["psi"] for name, found in drift_of(sketch).items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_change_of_unit_is_unmistakable_and_nothing_else_comes_near_the_alert(seed: int) -> None:
    world = World(seed=seed)
    calm, changed, concept = psi(world, 0, 4), psi(world, 4, 5), psi(world, 5, 10)
    assert max(calm.values()) < threshold() / 4
    assert changed.pop("hours_per_week") > 4 * threshold()
    assert max(changed.values()) < threshold() / 4
    assert max(concept.values()) < threshold() / 4


def test_the_same_seed_gives_the_same_weeks_and_another_one_others() -> None:
    assert WORLD.people(3).equals(WORLD.people(3))
    assert not WORLD.people(3).equals(replace(WORLD, seed=2).people(3))


def test_a_weeks_file_features_and_labels_are_of_the_same_people_and_of_nobody_before() -> None:
    asked = csv.read_csv(BufferReader(WORLD.ids(2))).column("user_id").to_pylist()
    features, labels = WORLD.features(2, NOW), WORLD.labels(2, NOW)
    assert asked == features.column("user_id").to_pylist() == labels.column("user_id").to_pylist()
    assert not set(asked) & set(WORLD.people(1)["user_id"])


def test_labels_are_learned_one_after_the_other_so_that_a_split_by_time_can_cut_anywhere() -> None:
    moments = WORLD.labels(2, NOW).column("event_timestamp").to_pylist()
    assert len(set(moments)) == WORLD.rows
    assert moments == sorted(moments)
    assert moments[-1] == NOW
    assert moments[0] > NOW - timedelta(seconds=1)


def test_both_changes_hurt_a_model_that_is_never_retrained_and_the_oracle_recovers() -> None:
    compared = compare(WORLD)
    before, unit, concept = ([1], [3], [5, 6])  # from the second week of each stretch on
    for weeks in (before, unit, concept):
        assert min(compared.weekly[week] for week in weeks) > 0.76
    assert max(compared.never[week] for week in (*unit, *concept)) < 0.6
    assert compared.retrains == WORLD.weeks - 1


@pytest.fixture(scope="module")
def told() -> Chronicle:
    """A loop that did well: two retrainings, each promoted, and as good as the oracle."""
    world = World(weeks=16, unit_from=6, concept_from=11)
    accuracy = [0.84] * 5 + [0.28, 0.28] + [0.83] * 3 + [0.7, 0.7] + [0.82] * 4
    versions = [1] * 7 + [2] * 5 + [3] * 4
    weeks = [
        Week(number, version, 8.1 if number in (6, 7) else 0.01, "hours_per_week", found)
        for number, version, found in zip(range(1, 17), versions, accuracy, strict=True)
    ]
    happenings = [
        Happening(6, "alert", "FeatureDrift hours_per_week"),
        Happening(6, "held", "PredictionDrift: busy"),
        Happening(7, "retrain", "FeatureDrift of hours_per_week"),
        Happening(7, "promoted", "version 2 promoted (champion was 1)"),
        Happening(12, "alert", "ModelQuality"),
        Happening(12, "retrain", "ModelQuality of the predictions"),
        Happening(12, "promoted", "version 3 promoted (champion was 2)"),
    ]
    return Chronicle(world, weeks, happenings, compare(replace(world, rows=600)))


def test_a_loop_that_is_as_good_as_the_oracle_with_few_retrainings_is_good(told: Chronicle) -> None:
    assert [one.good for one in findings(told)] == [True] * 4


def test_a_loop_that_did_not_recover_is_found_out(told: Chronicle) -> None:
    stuck = [replace(week, accuracy=0.28) if 6 <= week.number <= 10 else week for week in told.weeks]
    assert [one.good for one in findings(replace(told, weeks=stuck))] == [True, False, True, True]


def test_a_loop_that_retrains_a_third_as_often_as_the_oracle_is_found_out(told: Chronicle) -> None:
    again = [Happening(9, "retrain", "FeatureDrift of hours_per_week")] * 3
    assert [one.good for one in findings(replace(told, happenings=[*told.happenings, *again]))][-1] is False


def test_without_changes_a_single_retraining_is_one_too_many(told: Chronicle) -> None:
    calm = replace(told, world=World(changes=False))
    assert [one.good for one in findings(calm)] == [False]
    assert [one.good for one in findings(replace(calm, happenings=[]))] == [True]


def test_the_picture_and_its_page_tell_it_all_and_need_nothing_from_elsewhere(told: Chronicle, tmp_path: Path) -> None:
    found = findings(told)
    png, html = picture.draw(told, found, threshold(), tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    page = html.read_text()
    for said in ("<svg", "version 3 promoted", "PredictionDrift: busy", *(one.text for one in found)):
        assert said in page, said
    assert "src=" not in page
    assert "<script" not in page
    again, _ = picture.draw(told, found, threshold(), tmp_path)
    assert again.read_bytes() == png.read_bytes()


def test_the_picture_of_a_calm_world_says_that_nothing_was_done(told: Chronicle, tmp_path: Path) -> None:
    calm = replace(told, world=World(changes=False), happenings=[])
    _, html = picture.draw(calm, findings(calm), threshold(), tmp_path)
    assert "Nothing: no alert fired." in html.read_text()
