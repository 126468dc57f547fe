"""The shards' predictions as one file: the same bytes however they were cut, and never a row lost or twice."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.write_data.merge import compose, model_of
from pipelines.components.write_data.observation import drift_observation
from pipelines.errors import PipelineError
from pipelines.sketch import Sketch, reference_of

MODEL = "models:/income-classifier/3"
ABOUT = {"as_of": "2026-11-01T13:00:00+01:00", "subject": "s3://b/out", "rows": 9, "coverage": 0.5}
ROWS = pa.table(
    {
        "line": pa.array([2, 3, 4, 6, 9], pa.int64()),
        "probability": pa.array([0.6, None, None, 0.2, 0.1], pa.float64()),
        "status": ["ok", "unknown", "invalid", "ok", "ok"],
        "word": ["a", None, "b", "", "c"],
    }
)


def shard(folder: Path, name: str, rows: pa.Table, model: str = MODEL, row_group: int = 2) -> Path:
    pq.write_table(rows.replace_schema_metadata({"kfp_triggers.model": model}), folder / name, row_group_size=row_group)
    return folder / name


@pytest.mark.parametrize("cuts", [(5,), (1, 5), (2, 3, 5), (1, 2, 3, 4, 5)])
def test_the_bytes_depend_on_the_rows_only(cuts: tuple[int, ...], tmp_path: Path) -> None:
    whole = shard(tmp_path, "whole", ROWS, row_group=5)
    parts = [
        shard(tmp_path, str(stop), ROWS.slice(start, stop - start))
        for start, stop in zip((0, *cuts), cuts, strict=False)
    ]
    metadata = {"kfp_triggers.run_key": "k1", "kfp_triggers.model": model_of(parts)}
    for name, paths in (("a", [whole]), ("b", parts[::-1])):
        counts = compose(paths, tmp_path / name, metadata, 5)
        assert counts == {"ok": 3, "unknown": 1, "expired": 0, "invalid": 1}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    table = pq.read_table(tmp_path / "a")
    assert table.replace_schema_metadata(None) == ROWS
    assert table.schema.metadata[b"kfp_triggers.run_key"] == b"k1"
    assert table.schema.metadata[b"kfp_triggers.model"] == MODEL.encode()


@pytest.mark.parametrize(
    ("cuts", "said"),
    [
        pytest.param([(0, 2), (3, 2)], "5 rows were requested, and the shards hold 4", id="a_row_is_missing"),
        pytest.param([(0, 3), (2, 3)], "two shards hold the same rows", id="a_row_is_there_twice"),
        pytest.param([(0, 5), (0, 5)], "two shards hold the same rows", id="a_shard_is_there_twice"),
    ],
)
def test_a_row_is_never_lost_or_written_twice(cuts: list[tuple[int, int]], said: str, tmp_path: Path) -> None:
    parts = [shard(tmp_path, f"{number}", ROWS.slice(*cut)) for number, cut in enumerate(cuts)]
    with pytest.raises(PipelineError, match=said):
        compose(parts, tmp_path / "out", {}, 5)


def test_shards_of_two_model_versions_are_no_one_answer(tmp_path: Path) -> None:
    parts = [shard(tmp_path, version, ROWS, f"models:/income-classifier/{version}") for version in ("3", "4")]
    with pytest.raises(PipelineError, match=r"income-classifier/3, models:/income-classifier/4; the alias moved"):
        model_of(parts)


def test_the_drift_of_shards_is_the_drift_of_the_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    features, scores = pa.table({"age": random.normal(40, 10, 900)}), random.random(900)
    reference = reference_of(features, scores)
    for name, spans in (("whole", [(0, 900)]), ("cut", [(0, 200), (200, 700)])):
        for number, (start, rows) in enumerate(spans):
            sketch = Sketch(reference)
            sketch.add(features.slice(start, rows), scores[start : start + rows])
            (tmp_path / f"{name}{number}").write_text(json.dumps(sketch.document()))
    whole = drift_observation([tmp_path / "whole0"], MODEL, ABOUT)["observation"]
    assert whole == drift_observation([tmp_path / "cut0", tmp_path / "cut1"], MODEL, ABOUT)["observation"]
    assert (whole["kind"], whole["model"], whole["version"]) == ("drift", "income-classifier", 3)
    assert whole["as_of"] == "2026-11-01T12:00:00+00:00"
    assert whole["columns"]["age"]["psi"] < 1e-9


def test_a_model_without_a_reference_is_not_observed_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "sketch").write_text("{}")
    facts = drift_observation([tmp_path / "sketch"], MODEL, ABOUT)
    assert list(facts) == ["unobserved"]
    assert f"{MODEL} has no reference.json" in facts["unobserved"]
