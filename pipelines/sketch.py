"""What a table looks like, in a few hundred numbers: a reference from training, and counts of later rows against it.

`reference_of` is called by evaluate_model; its document travels with the registered model as `reference.json`.
run_inference keeps a `Sketch` of what it scores, one a shard; write_data merges them and asks `pipelines.drift`. Rows
are only ever counted, in bins that the reference fixes: a merge is exact, and the result is the same however the rows
were cut into shards and chunks. No row and no id is kept; a word only if it is common.

Imports numpy and pyarrow, nothing slower: every scoring step starts with it.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PipelineError

SCORE = "(score)"  #: the name that the model's probabilities go by, beside the columns; no column is called so
BINS = 50  #: of a number, about as many rows in each; of a word, the categories with a count of their own
COMMON = 5  #: rows that a word must be in to be named: a column of rare words, an id say, leaves none of them behind
NARROW = 1 << 16  #: whole numbers within so small a range are counted by value first, which is 20 times faster

Reference = Mapping[str, Any]


def reference_of(features: pa.Table, scores: np.ndarray | None) -> dict[str, Any]:
    """The reference of each column that can be watched, and of the scores, as a JSON document.

    A number (integer, float, decimal): `edges` e0 < e1 < ..., `counts` of the bins (-inf, e0], (e0, e1], ..., (ek, inf)
    of which the first and the last hold what lies outside (here nothing), `mean` and `std` of the finite values, null
    without any. A word (string, boolean): `counts` by category, `other` for the rest. Both: `rows`, and how many of
    them are `missing` (null or NaN). Columns of other types, times say, are left out. The scores may have another
    number of rows than the features, or be left out.
    """
    columns = {name: features.column(name) for name in features.column_names if _kind(features.schema.field(name).type)}
    made = {name: _reference(column) for name, column in columns.items()}
    if scores is not None:
        made[SCORE] = _reference(pa.chunked_array([pa.array(np.asarray(scores, np.float64))]))
    return made


class Sketch:
    """Rows counted against a reference: one of a shard, or of several after `merge`."""

    def __init__(self, reference: Reference) -> None:
        """An empty one. A document that is no reference is a PipelineError: a model may come from anywhere."""
        self.reference = dict(reference)
        self.counts = {name: np.zeros_like(expected(column, name)) for name, column in self.reference.items()}

    def add(self, features: pa.Table, scores: np.ndarray) -> None:
        """Count a chunk: its features, and as many scores, NaN where a row was not scored.

        A row without a single feature counts nowhere, for nothing is known of that user: the coverage tells of it.
        Other columns than the reference's may stand in the table.
        """
        names = [name for name in self.reference if name != SCORE]
        if lacking := [name for name in names if name not in features.column_names]:
            raise PipelineError(f"the model's reference has {', '.join(lacking[:5])}, which the features lack")
        known = _known(features.select(names))
        for name in names:
            self.counts[name] += _counted(self.reference[name], known.column(name), name)
        if SCORE in self.reference:
            scored = np.asarray(scores, np.float64)
            self.counts[SCORE][:-1] += _in_bins(scored[~np.isnan(scored)], _edges(self.reference[SCORE]))

    def merge(self, other: "Sketch") -> None:
        """Take over what another sketch, of the same reference, has counted."""
        if other.reference != self.reference:
            raise PipelineError("two shards were measured against different references: did the model version change?")
        for name, counts in other.counts.items():
            self.counts[name] += counts

    def document(self) -> dict[str, Any]:
        """All of it as a JSON document, its reference included; `read` makes the same sketch of it."""
        return {"reference": self.reference, "counts": {name: found.tolist() for name, found in self.counts.items()}}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """A sketch from its document."""
        made = cls(document["reference"])
        for name, empty in made.counts.items():
            counts = np.asarray(document["counts"][name], np.int64)
            if counts.shape != empty.shape:
                raise PipelineError(f"the sketch of {name} does not have its reference's bins")
            made.counts[name] = counts
        return made


def expected(column: Reference, name: str) -> np.ndarray:
    """A reference's counts as a sketch keeps them: one a bin or category in order, the last for what is missing."""
    try:
        if column["kind"] == "number":
            bins = [int(count) for count in column["counts"]]
            whole = len(bins) == len(column["edges"]) + 1
        else:
            bins = [*(int(column["counts"][word]) for word in _words(column)), int(column["other"])]
            whole = column["kind"] == "word"
        found = np.array([*bins, int(column["missing"])], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        whole = False
    if not whole or found.min() < 0:
        raise PipelineError(f"the model's reference.json says nothing usable of {name[:100]}; evaluate it again")
    return found


def _kind(type_: pa.DataType) -> str:
    """`number`, `word`, or "" for what is not watched."""
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    return "word" if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_boolean(type_) else ""


def _reference(column: pa.ChunkedArray) -> dict[str, Any]:
    if _kind(column.type) == "word":
        return _of_words(column)
    values, missing = _numbers(column)
    finite = values[np.isfinite(values)]
    edges = _cut(finite)
    return {
        "kind": "number",
        "edges": edges.tolist(),
        "counts": _in_bins(values, edges).tolist(),
        "rows": len(column),
        "missing": missing,
        "mean": float(finite.mean()) if len(finite) else None,
        "std": float(finite.std()) if len(finite) else None,
    }


def _cut(values: np.ndarray) -> np.ndarray:
    """Edges at values that occur: each value where there are few, else quantiles; the first just below the smallest."""
    if not len(values):
        return np.array([])
    found = np.unique(values).astype(np.float64)
    if len(found) > BINS:
        found = np.unique(np.quantile(values, np.arange(1, BINS + 1) / BINS, method="inverted_cdf").astype(np.float64))
    return np.concatenate([[np.nextafter(float(values.min()), -np.inf)], found])


def _of_words(column: pa.ChunkedArray) -> dict[str, Any]:
    found, missing = _word_counts(column)
    ranked = sorted(found, key=lambda word: (-found[word], word))
    kept = sorted(word for word in ranked[:BINS] if found[word] >= COMMON)
    return {
        "kind": "word",
        "counts": {word: found[word] for word in kept},
        "other": sum(found.values()) - sum(found[word] for word in kept),
        "rows": len(column),
        "missing": missing,
    }


def _known(features: pa.Table) -> pa.Table:
    """The rows that have at least one feature."""
    if not features.num_columns or any(not column.null_count for column in features.columns):
        return features  # a column without a gap: nothing to look for
    known = pc.is_valid(features.column(0))
    for column in features.columns[1:]:
        known = pc.or_(known, pc.is_valid(column))
    return features.filter(known)


def _counted(reference: Reference, column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A chunk of a column as a vector of counts, as `expected` lays them out."""
    if pa.types.is_null(column.type):  # a column without a single value may have lost its type
        column = column.cast(pa.float64() if reference["kind"] == "number" else pa.string())
    if _kind(column.type) != reference["kind"]:
        raise PipelineError(f"{name} is {column.type}, but the model's reference has a {reference['kind']} there")
    if reference["kind"] == "number":
        values, missing = _numbers(column)
        return np.array([*_in_bins(values, _edges(reference)), missing], np.int64)
    found, missing = _word_counts(column)
    counts = [found.pop(word, 0) for word in _words(reference)]
    return np.array([*counts, sum(found.values()), missing], np.int64)


def _numbers(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """The values that are there, whole numbers as such, and how many are not."""
    there = column.drop_null()
    if pa.types.is_dictionary(there.type):
        there = there.cast(there.type.value_type)
    if pa.types.is_decimal(there.type):
        there = there.cast(pa.float64())
    values = there.to_numpy()
    if values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    return values, len(column) - len(values)


def _in_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many values lie in each of the len(edges) + 1 bins; an edge belongs to the bin on its left."""
    if values.dtype.kind == "i" and len(values) and int(values.max()) - int(values.min()) < NARROW:
        lowest = int(values.min())
        each = np.bincount(values.astype(np.int64, copy=False) - lowest)
        bins = np.searchsorted(edges, np.arange(lowest, lowest + len(each)).astype(np.float64))
        return np.bincount(bins, weights=each, minlength=len(edges) + 1).astype(np.int64)
    return np.bincount(np.searchsorted(edges, values.astype(np.float64)), minlength=len(edges) + 1)


def _word_counts(column: pa.ChunkedArray) -> tuple[dict[str, int], int]:
    """How often each word is there, and how often none is."""
    counts = pc.value_counts(column.cast(pa.string()).drop_null())
    found = dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True))
    return found, column.null_count


def _words(reference: Reference) -> list[str]:
    return sorted(reference["counts"])


def _edges(reference: Reference) -> np.ndarray:
    return np.asarray(reference["edges"], np.float64)
