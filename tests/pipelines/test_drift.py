"""The figures of a drift: nothing for nothing, much for much, and a finite number always."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.components.write_data.observation import drift_observation
from pipelines.drift import chi2, drift_of, ks, psi
from pipelines.sketch import SCORE, Sketch, reference_of
from service.flow.observe import observations_of

COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12)


def drift(before: pa.Table, after: pa.Table, scores=(None, None)):
    sketch = Sketch(reference_of(before, scores[0]))
    sketch.add(after, np.full(after.num_rows, np.nan) if scores[1] is None else scores[1])
    return drift_of(sketch)


def normal(mean: float = 40, rows: int = 4_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 10, rows)


@given(COUNTS, st.integers(1, 50))
def test_psi_of_the_same_shares_is_zero(counts, times):
    assert psi(np.array(counts), np.array(counts) * times) == pytest.approx(0, abs=1e-12)


@given(COUNTS, st.randoms())
def test_psi_is_never_negative_and_always_finite(counts, order):
    other = list(counts)
    order.shuffle(other)

    found = psi(np.array(counts), np.array(other))

    assert found >= 0
    assert math.isfinite(found)


def test_psi_is_the_formula_of_the_book():
    # Siddiqi's: the sum of (actual - expected) * ln(actual / expected).
    expected = (0.5 - 0.25) * math.log(2) + (0.5 - 0.75) * math.log(0.5 / 0.75)

    assert psi(np.array([100, 300]), np.array([50, 50])) == pytest.approx(expected)


def test_ks_at_the_edges_is_a_lower_bound_of_the_true_distance_and_close_to_it():
    before, after = normal(), normal(mean=43, rows=1_500, seed=1)
    true = stats.ks_2samp(before, after, method="asymp")

    found = drift(pa.table({"x": before}), pa.table({"x": after}))["x"]

    assert true.statistic - 0.03 < found["statistic"] <= true.statistic
    assert found["p_value"] >= true.pvalue


def test_ks_and_chi2_agree_with_scipy_where_the_bins_lose_nothing():
    counts = np.array([[30, 50, 20], [10, 60, 30]])
    values = [np.repeat([1, 2, 3], row) for row in counts]

    assert ks(*counts)[0] == pytest.approx(stats.ks_2samp(*values).statistic)
    assert chi2(*counts) == pytest.approx(stats.chi2_contingency(counts)[:2])


@pytest.mark.parametrize(
    ("before", "after", "least", "most"),
    [
        pytest.param(normal(), normal(seed=3), 0, 0.02, id="a number, unchanged"),
        pytest.param(normal(), normal(mean=41, seed=3), 0, 0.1, id="a number, slightly moved"),
        pytest.param(normal(), normal(mean=50, seed=3), 0.25, 2, id="a number, moved by its deviation"),
        pytest.param(normal(), normal(seed=3) * 4.33, 1, 20, id="a number, in another unit"),
        pytest.param([5.0] * 500, [6.0] * 500, 1, 20, id="a constant, replaced"),
        pytest.param([5.0] * 500, [5.0] * 500, 0, 0, id="a constant, unchanged"),
        pytest.param([0] * 450 + [1] * 50, [-1] * 450 + [1] * 50, 1, 20, id="below what most rows had"),
        pytest.param(["a", "b"] * 250, ["a", "b"] * 100, 0, 0, id="words, unchanged"),
        pytest.param(["a", "b"] * 250, ["a", "new"] * 100, 1, 20, id="a word never seen"),
        pytest.param(normal(), [None] * 500, 1, 20, id="a column that went missing"),
        pytest.param([None] * 500, normal(), 1, 20, id="a column that was missing"),
    ],
)
def test_how_large_the_psi_of_a_change_is(before, after, least, most):
    one, other = (
        pa.table({"x": pa.array(side, from_pandas=False), "there": [1] * len(side)}) for side in (before, after)
    )
    typed = (one.column("x").type, other.column("x").type)
    if pa.null() in typed:
        (whole,) = set(typed) - {pa.null()}
        one, other = (side.set_column(0, "x", side.column("x").cast(whole)) for side in (one, other))

    found = drift(one, other)

    assert least <= found["x"]["psi"] <= most
    assert found["there"]["psi"] == 0


def test_missing_is_told_beside_what_it_was():
    before, after = pa.table({"x": [1, None, 3, 4], "y": [1] * 4}), pa.table({"x": [1, None], "y": [1] * 2})

    found = drift(before, after)["x"]

    assert (found["missing"], found["reference_missing"], found["rows"]) == (0.5, 0.25, 2)


def test_scores_are_a_column_of_their_own():
    table, scores = pa.table({"x": normal()}), np.linspace(0, 0.5, 4_000)

    found = drift(table, table, (scores, 1 - scores))

    assert found["x"]["psi"] == 0
    assert found[SCORE]["psi"] > 1


def test_no_rows_are_no_change():
    table = pa.table({"x": normal(), "word": ["a"] * 4_000})

    found = drift(table, table.slice(0, 0))

    assert {name: (item["psi"], item["p_value"], item["missing"]) for name, item in found.items()} == {
        "x": (0, 1, 0), "word": (0, 1, 0)
    }  # fmt: skip


def test_what_write_data_tells_is_what_the_service_takes(tmp_path: Path):
    table = pa.table({"x": normal(), "word": ["a", "b"] * 2_000})
    reference = reference_of(table, np.linspace(0, 1, 4_000))
    paths = [tmp_path / name for name in ("1.json", "2.json")]
    for path, start in zip(paths, (0, 1_000), strict=True):
        sketch = Sketch(reference)
        sketch.add(table.slice(start, 1_000), np.linspace(0, 1, 1_000))
        path.write_text(json.dumps(sketch.document()))
    about = {"as_of": "2026-11-21T07:00:00Z", "subject": "s3://predictions/a.parquet", "rows": 2_000, "coverage": 1.0}

    facts = json.loads(json.dumps(drift_observation(paths, "models:/income-classifier/3", about)))
    (found,) = observations_of(facts, "k", datetime(2026, 11, 21, 8, tzinfo=UTC))

    assert (found.kind, found.model, found.version, found.rows) == ("drift", "income-classifier", 3, 2_000)
    assert found.figures["columns"].keys() == {"x", "word", SCORE}
    assert found.figures["columns"]["x"]["rows"] == 2_000
