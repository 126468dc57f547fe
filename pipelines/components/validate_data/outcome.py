"""A table held to a suite → what each expectation says, without one value of a row. Called by validate.py.

Great Expectations runs inside an ephemeral context: nothing is written to disk, nothing is sent anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import numpy as np
import pyarrow as pa
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

COUNTS = (
    "element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent",
    "unexpected_percent_total", "unexpected_percent_nonmissing",
)  # fmt: skip
AGGREGATES = (
    "expect_column_mean_to_be_between", "expect_column_stdev_to_be_between", "expect_column_sum_to_be_between",
    "expect_column_unique_value_count_to_be_between", "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_proportion_of_non_null_values_to_be_between", "expect_column_kl_divergence_to_be_less_than",
)  # fmt: skip
OF_TYPES = ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list")
OPEN = (  # arguments that hold no value of a row, whatever the column
    "column", "column_A", "column_B", "column_list", "column_index", "type_", "type_list", "mostly", "ignore_row_if",
)  # fmt: skip
COUNT_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}  # no unexpected value is listed


@dataclass(frozen=True)
class Failure:
    """An expectation that does not hold: of which columns, and of how many rows where it is about rows."""

    expectation: str
    columns: tuple[str, ...]
    rows: int | None
    why: str = ""  #: what was found instead, or why it could not be asked

    def __str__(self) -> str:
        told = ", ".join([*([f"{self.rows} rows"] if self.rows is not None else []), *([self.why] if self.why else [])])
        said = f"{', '.join(self.columns) or 'the table'}: {self.expectation}"
        return f"{said} ({told})" if told else said


@dataclass(frozen=True)
class Outcome:
    """What a suite says of a table: GE's own result, cut down to counts, and the failures in it."""

    result: ExpectationSuiteValidationResult
    rows: int
    failures: tuple[Failure, ...]

    @property
    def figures(self) -> dict[str, Any]:
        """The counts, as the run's report has them."""
        failed = len(self.failures)
        return {
            "expectations": len(self.result.results), "failed": failed, "rows": self.rows, "success": not failed
        }  # fmt: skip


def hold(rows: pa.Table, suite: gx.ExpectationSuite, ids: Sequence[str]) -> Outcome:
    """Evaluates the suite on the rows; of the columns `ids` not even a minimum or a maximum is kept.

    The batch is asked and not a ValidationDefinition: that one stores what it found, and fails at numpy's booleans.
    """
    context: Any = gx.get_context(mode="ephemeral", project_config=_settings())
    asset = context.data_sources.add_pandas("training").add_dataframe_asset("training data")
    whole = asset.add_batch_definition_whole_dataframe("training and test set")
    answer = whole.get_batch({"dataframe": rows.to_pandas()}).validate(suite, result_format=COUNT_ONLY)
    results = sorted((_told(one, rows.schema, ids) for one in answer.results), key=_place)
    statistics = {name: value for name, value in answer.statistics.items() if value is not None}
    cut = ExpectationSuiteValidationResult(
        success=all(one.success for one in results),
        results=results,
        suite_name=suite.name,
        statistics=statistics,
        meta={"great_expectations_version": gx.__version__},
    )
    return Outcome(cut, rows.num_rows, tuple(_failure(one) for one in results if not one.success))


def columns_of(arguments: dict[str, Any]) -> tuple[str, ...]:
    """The columns that an expectation is about, from its arguments; none, if it is about the table."""
    named = [arguments.get(name) for name in ("column", "column_A", "column_B")]
    return tuple(str(name) for name in [*named, *(arguments.get("column_list") or [])] if name is not None)


def _settings() -> DataContextConfig:
    """Stores in memory, no folder for docs, no bars in the run's log, nobody told."""
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    return DataContextConfig(
        store_backend_defaults=stores, analytics_enabled=False, progress_bars=ProgressBarsConfig(globally=False)
    )


def _told(one: Any, schema: pa.Schema, ids: Sequence[str]) -> ExpectationValidationResult:
    """One result without what could be a value of a row, and with plain numbers: GE's pages stumble over numpy's."""
    config = one.expectation_config
    private = set(columns_of(config.kwargs)) & set(ids)
    config.kwargs.pop("batch_id", None)
    masked = {name: _masked(v) for name, v in config.kwargs.items() if name not in OPEN and _masked(v) != v}
    if private and masked:  # the suite itself may hold ids
        config.kwargs |= masked
        config.description = f"{config.type} ({', '.join(masked)}: not shown, for an ID column)"
    kept = {name: _plain(one.result[name]) for name in COUNTS if one.result.get(name) is not None}
    if (seen := _seen(config.type, _plain(one.result.get("observed_value")))) is not None and not private:
        kept["observed_value"] = seen
    raised = {}
    if not one.result and not one.success and config.type != "expect_column_to_exist":
        raised = {
            "raised_exception": True,
            "exception_message": _unasked(config.kwargs, schema),
            "exception_traceback": "",
        }
    return ExpectationValidationResult(
        success=bool(one.success), expectation_config=config, result=kept, exception_info=raised
    )


def _masked(value: Any) -> Any:
    """The same kind of value, as GE asks for, with nothing in it; how long a list is says nothing of a row."""
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_masked(inner) for inner in value]
    return "-" if isinstance(value, str) else 0 if type(value) in (int, float) else value


def _seen(expectation: str, value: Any) -> Any:
    """What was observed, if it is made of all rows, a column's type or the table's columns.

    All else may be one row's: a maximum or a median is somebody's salary.
    """
    if expectation.startswith("expect_table_") or (expectation in OF_TYPES and isinstance(value, str)):
        return value
    return value if expectation in AGGREGATES and isinstance(value, int | float) else None


def _failure(one: Any) -> Failure:
    arguments = one.expectation_config.kwargs
    rows = one.result.get("unexpected_count") if "element_count" in one.result else None
    seen = one.result.get("observed_value")
    why = one.exception_info.get("exception_message") or (f"found {seen}" if seen is not None else "")
    return Failure(one.expectation_config.type, columns_of(arguments), rows, why)


def _unasked(arguments: dict[str, Any], schema: pa.Schema) -> str:
    """Why an expectation gave no result. GE's own text is left out: it may quote a row."""
    columns = columns_of(arguments)
    if missing := [name for name in columns if name not in schema.names]:
        return f"there is no column {', '.join(missing)}"
    types = ", ".join(str(schema.field(name).type) for name in columns)
    return f"cannot be evaluated on {types}" if types else "cannot be evaluated"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _place(one: Any) -> tuple[tuple[str, ...], str, str]:
    """By column: GE's own order depends on what it computed together."""
    config = one.expectation_config
    return columns_of(config.kwargs), config.type, str(sorted(config.kwargs.items(), key=str))
