"""A run's final state + the reports of its steps → which step ended it, and why. Called by component.py.

KFP itself tells an exit task no more than "exit-handler-1 failed". The steps have said more: each leaves a report, and
a failing one its reason (`pipelines.report`). A step that was killed, by the system or a time limit, could say nothing
any more; then the steps that did end are named, for it came after them.
"""

import logging
from collections.abc import Mapping
from typing import Any

from pipelines.components.report_failure.reports import read_reports
from pipelines.errors import PipelineError
from pipelines.report import Step

SUCCEEDED, CANCELLED = "SUCCEEDED", ("CANCELLED", "CANCELED")  # both spellings are KFP's
OWN = "report_failure"
Reports = Mapping[str, Mapping[str, Any]]
log = logging.getLogger(__name__)


def tell(state: str, pipeline: str, run_key: str, report_uri: str) -> None:
    """Writes `{report_uri}/report_failure.json`: FAIL for a run that failed, nothing for one that did not.

    A report that an earlier, failed execution of the same run has left is replaced: it is no longer true. Raises only
    what reading the reports may raise; the run's own failure stands without this step.
    """
    if not report_uri:
        log.warning("run_ended state=%s reports=none", state)
        return
    reports = read_reports(report_uri)
    if state == SUCCEEDED and OWN not in reports:
        return
    step = Step(f"{pipeline}.{OWN}", run_key, report_uri)
    step.facts |= {"state": state, "done": steps_that(reports, "COMPLETE")}
    if state == SUCCEEDED:
        with step:
            return
    failed, reason = cause(state, reports)
    step.facts["failed"] = failed
    log.error("run_failed step=%s", failed or "unknown")
    try:
        with step:
            raise PipelineError(reason)
    except PipelineError:
        return  # it was raised to be reported: an exit task that fails too would only hide which step did


def cause(state: str, reports: Reports) -> tuple[str, str]:
    """The step that ended the run, "" when none has said so, and the reason in the step's own words."""
    if failed := steps_that(reports, "FAIL"):
        return failed[0], f"{failed[0]}: {_message(reports[failed[0]])}"
    if state in CANCELLED:
        return "", "the run was cancelled"
    done = ", ".join(steps_that(reports, "COMPLETE")) or "none"
    return "", (
        "a step ended without a word: it was killed (memory, a time limit, a lost node) or never started. "
        f"Steps that ended well: {done}"
    )


def steps_that(reports: Reports, kind: str) -> list[str]:
    """The steps that reported COMPLETE or FAIL, in the order in which they ended."""
    ended = [(str(report.get("eventTime", "")), name) for name, report in reports.items()]
    return [name for _, name in sorted(ended) if reports[name].get("eventType") == kind and name != OWN]


def _message(report: Mapping[str, Any]) -> str:
    try:
        return str(report["run"]["facets"]["errorMessage"]["message"])
    except (KeyError, TypeError):
        return "it says no reason; the run's log may"
