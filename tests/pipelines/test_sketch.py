"""A reference of a table, and rows counted against it: exact, mergeable, and silent about single rows."""

import json
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import PipelineError
from pipelines.sketch import BINS, SCORE, Sketch, reference_of

NUMBERS = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan"))), max_size=60)
WORDS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefg")), min_size=60, max_size=60)


def people(rows: int = 1_000, seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    hours, weight = draw.integers(1, 99, rows), draw.normal(70, 12, rows)
    return pa.table({"hours": hours, "weight": weight, "work": draw.choice(["private", "public", "own"], rows)})


def scores(rows: int = 1_000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(rows)


def sketched(reference, *chunks) -> Sketch:
    made = Sketch(reference)
    for features, found in chunks:
        made.add(features, found)
    return made


def test_the_rows_that_made_a_reference_have_its_counts_and_none_outside():
    reference = reference_of(people(), scores())

    made = sketched(reference, (people(), scores()))

    for name in ("hours", "weight", SCORE):
        assert made.counts[name].tolist() == [*reference[name]["counts"], 0]
        assert made.counts[name][0] == made.counts[name][-2] == 0
        assert made.counts[name].sum() == 1_000


def test_a_numbers_reference_has_about_equal_bins_and_its_moments():
    weight = reference_of(people(), None)["weight"]

    assert len(weight["edges"]) == BINS + 1
    assert set(weight["counts"][1:-1]) == {20}
    assert (weight["mean"], weight["std"]) == pytest.approx((70, 12), rel=0.05)


@pytest.mark.parametrize(
    ("column", "value", "place"),
    [
        pytest.param([5, 5, 5, 5], 5, 1, id="constant, unchanged"),
        pytest.param([5, 5, 5, 5], 4, 0, id="constant, below"),
        pytest.param([5, 5, 5, 5], 6, 2, id="constant, above"),
        pytest.param([0, 0, 0, 1], -1, 0, id="below a smallest value that most rows have"),
        pytest.param([0.0, 1.0], float("inf"), 3, id="infinite"),
        pytest.param([0.0, 1.0], float("nan"), -1, id="not a number is missing"),
        pytest.param([None, None], 3, 0, id="the reference had no value at all"),
        pytest.param([Decimal("1.5")], Decimal("1.5"), 1, id="decimal"),
    ],
)
def test_where_a_value_is_counted(column, value, place):
    array = pa.array(column, pa.int64() if column == [None, None] else None)
    made = Sketch(reference_of(pa.table({"x": array, "all": [1] * len(column)}), None))

    made.add(pa.table({"x": [value], "all": [1]}), np.array([0.5]))

    assert made.counts["x"][place] == 1
    assert made.counts["x"].sum() == 1


def test_a_word_is_named_only_when_it_is_common():
    column = ["private"] * 9 + [f"person {number}" for number in range(100)]

    found = reference_of(pa.table({"work": column}), None)["work"]

    assert found == {"kind": "word", "counts": {"private": 9}, "other": 100, "rows": 109, "missing": 0}


def test_an_unseen_word_counts_as_other_and_a_truth_value_as_a_word():
    table = pa.table({"work": ["a"] * 8 + ["b"] * 8, "own": [True, False] * 8})
    made = Sketch(reference_of(table, None))

    made.add(pa.table({"work": ["b", "new"], "own": [True, None]}), np.array([0.1, 0.2]))

    assert made.counts["work"].tolist() == [0, 1, 1, 0]
    assert made.counts["own"].tolist() == [0, 1, 0, 1]


def test_a_row_without_any_feature_counts_nowhere_and_one_without_a_score_not_among_the_scores():
    made = Sketch(reference_of(people(), scores()))

    made.add(
        pa.table({"hours": [None, 40], "weight": [None, None], "work": pa.array([None, "own"]), "user_id": [1, 2]}),
        np.array([np.nan, np.nan]),
    )

    assert {name: int(made.counts[name].sum()) for name in made.counts} == {
        "hours": 1, "weight": 1, "work": 1, SCORE: 0
    }  # fmt: skip
    assert made.counts["weight"][-1] == 1


def test_times_and_lists_are_not_watched():
    table = pa.table({"seen": pa.array([0], pa.timestamp("us", tz="UTC")), "tags": [["a"]], "age": [30]})

    assert list(reference_of(table, None)) == ["age"]


@settings(max_examples=40, deadline=None)
@given(numbers=NUMBERS, words=WORDS, cuts=st.lists(st.integers(0, 60), max_size=4), order=st.randoms())
def test_the_result_does_not_depend_on_how_the_rows_were_cut_or_in_which_order_they_were_merged(
    numbers, words, cuts, order
):
    rows = len(numbers)
    table = pa.table({"x": pa.array(numbers, pa.float64()), "word": pa.array(words[:rows], pa.string())})
    found = np.linspace(0, 1, rows)
    reference = reference_of(table.slice(0, rows // 2), found[: rows // 2])
    places = sorted({0, rows, *(cut % (rows + 1) for cut in cuts)})
    shards = [
        sketched(reference, (table.slice(start, end - start), found[start:end])) for start, end in pairwise(places)
    ]
    order.shuffle(shards)

    merged = Sketch(reference)
    for shard in shards:
        merged.merge(Sketch.read(json.loads(json.dumps(shard.document(), allow_nan=False))))

    assert merged.document() == sketched(reference, (table, found)).document()


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        pytest.param({"hours": {"kind": "number", "edges": [1.0]}}, "nothing usable of hours", id="no counts"),
        pytest.param(
            {"hours": {"kind": "number", "edges": [1.0], "counts": [1], "missing": 0}},
            "nothing usable of hours",
            id="too few counts",
        ),
        pytest.param({"hours": "many"}, "nothing usable of hours", id="no object"),
        pytest.param(
            {"absent": {"kind": "word", "counts": {}, "other": 1, "missing": 0}}, "absent, which the", id="column gone"
        ),
        pytest.param(
            {"hours": {"kind": "word", "counts": {}, "other": 1, "missing": 0}},
            "hours is int64, but the model's reference has a word",
            id="another kind",
        ),
    ],
)
def test_a_reference_that_does_not_fit_says_so(edited, said):
    with pytest.raises(PipelineError, match=said):
        Sketch(edited).add(people(10), scores(10))


def test_shards_of_two_references_are_not_merged():
    one, other = Sketch(reference_of(people(), None)), Sketch(reference_of(people(seed=7), None))

    with pytest.raises(PipelineError, match="different references"):
        one.merge(other)
