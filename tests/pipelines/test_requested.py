"""How rows are cut into shards and put together again."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PipelineError
from pipelines.requested import GRID, MOST_SHARDS, regrouped, rows_between, shard_numbers, span


@pytest.mark.parametrize(("rows", "shards"), [(10, 1), (10, 3), (150_000, 3), (100_001, 5), (1, 40), (1_000_003, 7)])
def test_shards_cover_every_row_once_and_in_order(rows: int, shards: int) -> None:
    spans = [span(rows, shards, number) for number in shard_numbers(rows, shards)]
    assert spans[0][0] == 0
    assert spans[-1][1] == rows
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(stop > start for start, stop in spans)
    assert all(start % GRID == 0 for start, _ in spans)


@pytest.mark.parametrize(("shards", "numbers"), [(1, [0]), (3, [1, 2, 3]), (9, [1, 2, 3, 4, 5])])
def test_one_shard_is_number_0_and_none_is_smaller_than_what_is_scored_at_once(shards: int, numbers: list[int]) -> None:
    assert shard_numbers(4 * GRID + 1, shards) == numbers


@pytest.mark.parametrize("shards", [0, -1, MOST_SHARDS + 1])
def test_a_number_of_shards_that_cannot_be_is_refused(shards: int) -> None:
    with pytest.raises(PipelineError, match=f"shards is {shards}; it can be 1 to"):
        shard_numbers(5, shards)


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (0, 3), (3, 4), (2, 9), (9, 10)])
def test_a_shard_s_rows_are_read_across_row_groups(start: int, stop: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"line": range(10)}), tmp_path / "rows", row_group_size=3)
    found = [line for table in rows_between(tmp_path / "rows", start, stop) for line in table["line"].to_pylist()]
    assert found == list(range(start, stop))


@pytest.mark.parametrize("sizes", [(7,), (1, 1, 1, 4), (3, 0, 4), (6, 1)])
def test_tables_of_any_sizes_come_out_in_the_same_pieces(sizes: tuple[int, ...]) -> None:
    lines = iter(range(7))
    tables = [pa.table({"line": pa.array([next(lines) for _ in range(size)], pa.int64())}) for size in sizes]
    assert [table["line"].to_pylist() for table in regrouped(tables, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
