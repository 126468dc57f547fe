"""Training and test set, held together to the suite of the bucket. Called by component.py.

The docs are written before the step fails, into the artifact and beside the run's report: on a cluster KFP keeps no
artifact of a step that failed, and this is when somebody wants to read them.
"""

import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import PipelineError
from pipelines.page import page, publish
from pipelines.report import Step, stored_object

IDS = ("user_id",)
PAGE = "validation.html"
SHOWN = 10  # failures in the error's text; the page has them all


def validate(paths: tuple[str, str], suite_uri: str, docs: str, step: Step) -> dict[str, Any]:
    """Holds both files to the suite and writes the docs; a failed expectation is a PipelineError.

    Returns, for register_model, `suite`, its `version`, `expectations`, `failed`, `rows` and `success`. Without a suite
    both texts are empty and `expectations` is 0: nobody looked, and Great Expectations is not even imported.
    """
    rows = pa.concat_tables([pq.read_table(path, partitioning=None).replace_schema_metadata() for path in paths])
    if suite_uri:
        return _held(rows, suite_uri, docs, step)
    said = f"suite_uri is empty: nothing was expected of the {rows.num_rows:,} rows, and nothing was checked."
    publish(page("Validation of training data: none", [f"<p>{said}</p>"]), docs, PAGE, step)
    return _told({"expectations": 0, "failed": 0, "rows": rows.num_rows, "success": True}, "", "", step)


def _held(rows: pa.Table, suite_uri: str, docs: str, step: Step) -> dict[str, Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before the import: a step tells nobody outside of its run
    from pipelines.components.validate_data.docs import page_of  # noqa: PLC0415 - five seconds
    from pipelines.components.validate_data.outcome import hold  # noqa: PLC0415
    from pipelines.components.validate_data.suite import read_suite  # noqa: PLC0415

    suite, ref, stored = read_suite(suite_uri)
    step.inputs.append(stored_object(ref, stored))
    outcome = hold(rows, suite, IDS)
    address = publish(page_of(outcome, suite_uri), docs, PAGE, step)
    told = _told(outcome.figures, suite_uri, stored.version, step)
    if outcome.failures:
        shown = "; ".join(map(str, outcome.failures[:SHOWN]))
        more = len(outcome.failures) - SHOWN
        raise PipelineError(
            f"{len(outcome.failures)} of {told['expectations']} expectations of {suite_uri} do not hold for the "
            f"{outcome.rows} rows of training and test set. {shown}{f'; and {more} more' if more > 0 else ''}. "
            f"Mend the data, or the suite if it expects too much{f'; the docs are {address}' if address else ''}"
        )
    return told


def _told(figures: dict[str, Any], suite: str, version: str, step: Step) -> dict[str, Any]:
    step.facts["validation"] = {"suite": suite, **figures}
    return {"suite": suite, "version": version, **figures}
