"""Figures of the features that a run used, gathered chunk by chunk: for the report, so without a single row in them.

What fewer than COMMON rows tell is somebody's value, and is left out; so are the least and the most, whatever the rows.
"""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sketch import COMMON

CATEGORIES = 30  # named in the report; rarer ones are counted together


class Summary:
    """Counts, means and spreads of columns, of any number of tables with the same columns."""

    def __init__(self) -> None:
        self._columns: dict[str, _Numbers | _Words] = {}

    def add(self, table: pa.Table) -> None:
        """Counts a table's rows in."""
        for name in table.column_names:
            column = table.column(name)
            number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
            self._columns.setdefault(name, _Numbers() if number else _Words()).add(column)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Per column: rows, missing, and mean and std, or the count of each category that is common."""
        return {name: column.figures() for name, column in self._columns.items()}


class _Numbers:
    def __init__(self) -> None:
        self.rows = self.count = 0
        self.mean = self.squares = 0.0

    def add(self, column: pa.ChunkedArray) -> None:
        """Means and squares of two parts put together (Chan et al. 1979): stable where a sum of squares is not."""
        self.rows += len(column)
        values = pc.cast(column, pa.float64()).drop_null().to_numpy()
        if not (finite := np.isfinite(values)).all():
            values = values[finite]
        if not (count := len(values)):
            return
        mean = float(values.mean())
        total, apart = self.count + count, mean - self.mean
        self.squares += float(np.square(values - mean).sum()) + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    def figures(self) -> dict[str, Any]:
        known = {"mean": self.mean, "std": math.sqrt(self.squares / self.count)} if self.count >= COMMON else {}
        return {"rows": self.rows, "missing": self.rows - self.count} | known


class _Words:
    def __init__(self) -> None:
        self.rows = self.missing = 0
        self.counts: Counter[str] = Counter()

    def add(self, column: pa.ChunkedArray) -> None:
        self.rows += len(column)
        self.missing += column.null_count
        for item in pc.value_counts(pc.cast(column.drop_null(), pa.string())):
            self.counts[item["values"].as_py()[:80]] += item["counts"].as_py()

    def figures(self) -> dict[str, Any]:
        named = dict(sorted((word, rows) for word, rows in self.counts.most_common(CATEGORIES) if rows >= COMMON))
        rest = self.counts.total() - sum(named.values())
        return {"rows": self.rows, "missing": self.missing, "categories": named} | ({"other": rest} if rest else {})
