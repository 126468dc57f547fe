"""Parts of a test set that are looked at by themselves: `column`, or `column=value`.

Called by evaluate_model, which shows them, and by compare_models, which lets none get worse: both see the same parts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PipelineError

FORBIDDEN = ("user_id", "event_timestamp", "income")
VALUES = 12  #: of a column that is named without a value, at most: the most common ones
SMALLEST = 30  #: rows of a slice that nobody asked for by its value: fewer say nothing, and may point at a person
QUARTERS = (0.25, 0.5, 0.75)


def slices_of(rows: pa.Table, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows of each slice as a mask, by the name `column=value`, in the order of `wanted`.

    `column` alone is each of its values; of a number with more than a few of them, its quarters, `age=29..37` with
    both ends included. `column=value` is that value alone, however rare.
    """
    found: dict[str, np.ndarray] = {}
    for entry in wanted:
        name, value = _asked(entry, rows.schema)
        column = rows.column(name)
        found |= {entry.strip(): _mask(pc.equal(column, value))} if value is not None else dict(_each(name, column))
    return found


def check_slices(schema: pa.Schema, wanted: Sequence[str]) -> None:
    """That there can be such slices of rows with these columns. Called by train_model, before anything is fitted."""
    for entry in wanted:
        _asked(entry, schema)


def _asked(entry: str, schema: pa.Schema) -> tuple[str, pa.Scalar | None]:
    """The column that an entry names, and the value, if it has one."""
    name, equals, value = entry.strip().partition("=")
    if schema.get_field_index(name) < 0 or name in FORBIDDEN:
        raise PipelineError(f"slices: {name[:100]!r} is no feature; write column or column=value")
    type_ = schema.field(name).type
    try:
        return name, pa.scalar(value).cast(type_) if equals else None
    except pa.ArrowException as error:
        raise PipelineError(f"slices: {value[:100]!r} is no value of {name}, which is {type_}") from error


def _each(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    counts = sorted(
        pc.value_counts(column.drop_null()).to_pylist(), key=lambda one: (-one["counts"], str(one["values"]))
    )
    numeric = not pa.types.is_string(column.type) and not pa.types.is_boolean(column.type)
    if numeric and len(counts) > VALUES:
        yield from _quarters(name, column)
        return
    for one in counts[:VALUES]:
        if one["counts"] >= SMALLEST:
            yield f"{name}={one['values']}", _mask(pc.equal(column, pa.scalar(one["values"], column.type)))


def _quarters(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    """About as many rows in each; values that are equal stay together."""
    values = column.to_numpy()
    there = np.sort(values[~np.isnan(values)] if values.dtype.kind == "f" else values)
    cuts = np.unique(np.quantile(there, QUARTERS, method="inverted_cdf"))
    for low, high in zip([-np.inf, *cuts], [*cuts, np.inf], strict=True):
        inside = (values > low) & (values <= high)
        if inside.sum() >= SMALLEST:
            yield f"{name}={values[inside].min():g}..{values[inside].max():g}", inside


def _mask(equal: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(equal.fill_null(False).to_numpy(), bool)
