"""The gate: champion and candidate score the same hold-out, and a verdict comes of it. Called by component.py.

Nothing is moved here. The service moves the alias, by compare-and-set against the champion that is named in the
verdict: whoever was promoted meanwhile makes this verdict a lost one.
"""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from mlflow import MlflowClient

from pipelines.components.compare_models.account import account
from pipelines.components.compare_models.figures import Scored
from pipelines.components.compare_models.rule import Rule
from pipelines.components.compare_models.verdict import Verdict, judge, judged_part, undecided, unopposed
from pipelines.errors import PipelineError
from pipelines.instant import parse_instant
from pipelines.model_flavors import HIGH
from pipelines.page import publish
from pipelines.registered_model import Model, check_columns, load_folder, load_model
from pipelines.registry_errors import Unreachable, registry
from pipelines.report import Step, model_version
from pipelines.slices import slices_of

ALIAS = "champion"
LABEL, TIME = "income", "event_timestamp"
TRAINED_UNTIL = "trained_until"  #: register_model's tag
PAGE = "comparison.html"
AT_MOST = 100  # slices: the service reads no more
ENOUGH = 100  # rows that the champion was not fitted on: below this they decide nothing


@dataclass(frozen=True)
class Candidate:
    """The version that this run registered, and the folder that it was registered from."""

    name: str
    version: int
    folder: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def compare(candidate: Candidate, hold_out: str, rule: Rule, page: str, step: Step) -> Verdict:
    """The verdict, in the step's facts too; the page says it to people, also at `{report_uri}/comparison.html`."""
    table = pq.read_table(hold_out, partitioning=None)
    step.inputs.append(model_version(candidate.name, candidate.version))
    ours = scored(load_folder(candidate.folder, candidate.uri), table, candidate.uri)
    champion = champion_of(candidate.name)
    opposed = champion not in (0, candidate.version)
    if opposed:
        step.inputs.append(model_version(candidate.name, champion))
        verdict = _against(champion, candidate.name, ours, table, rule)
    else:
        verdict = unopposed(rule, ours, candidate.version, crowned=champion == candidate.version)
        champion = 0
    step.facts["promotion"] = verdict.facts(candidate.name, (candidate.version, champion), rule)
    if spread := verdict.interval:
        step.facts["better_by"] = {"low": spread.low, "high": spread.high, "share_at_margin": spread.share}
    publish(account(verdict, candidate.name, (candidate.version, champion), rule), page, PAGE, step)
    return verdict


def champion_of(name: str) -> int:
    """The version behind the alias `champion` at this moment; 0 when nothing is behind it."""
    with registry(f"models:/{name}@{ALIAS}"):
        return int(MlflowClient().get_registered_model(name).aliases.get(ALIAS, 0))


def scored(model: Model, hold_out: pa.Table, uri: str) -> Scored:
    """The model's probabilities for the hold-out. It may leave columns aside, but not want what is not there."""
    there = {field.name: str(field.type) for field in hold_out.schema if field.name in model.columns}
    check_columns(model.columns, there, uri)
    found = np.asarray(model.probability(hold_out.select(list(model.columns)).to_pandas()), np.float64)
    if found.shape != (hold_out.num_rows,) or not np.isfinite(found).all():
        raise PipelineError(f"{uri} gave no finite probability for some row of the hold-out")
    return Scored(hold_out.column(LABEL).to_numpy() == HIGH, found)


def trained_until(name: str, version: int) -> datetime | None:
    """The last moment that a version was fitted on; None for one that was registered without the tag."""
    with registry(f"models:/{name}/{version}"):
        told = MlflowClient().get_model_version(name, str(version)).tags.get(TRAINED_UNTIL, "")
    return parse_instant(told, TRAINED_UNTIL) if told else None


def _against(champion: int, name: str, ours: Scored, table: pa.Table, rule: Rule) -> Verdict:
    """A champion that is gone, or wants other columns, or does not load or score here, is a person's to decide about:
    the new version may be the cure, and may be what broke it. An error would only lose the training. But a registry
    that does not answer tells nothing of the champion, and is one."""
    parts = slices_of(table, rule.slices)
    if len(parts) > AT_MOST:
        raise PipelineError(f"slices makes {len(parts)} parts of the hold-out, more than {AT_MOST}; name fewer columns")
    try:
        new, note = _unseen(table, trained_until(name, champion))
        theirs = _scored_champion(f"models:/{name}/{champion}", load_model(name, champion), table.filter(pa.array(new)))
    except Unreachable:
        raise
    except PipelineError as problem:
        return undecided(rule, ours, str(problem))
    ours = ours.only(new)
    judged = tuple(
        judged_part(rule, part, ours.only(rows[new]), theirs.only(rows[new])) for part, rows in parts.items()
    )
    verdict = judge(rule, ours, theirs, judged)
    return replace(verdict, reasons=(*verdict.reasons, *note))


def _unseen(table: pa.Table, until: datetime | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which rows the champion was not fitted on, and what there is to say of the others.

    It knows the answers to those that it was fitted on: on them it would beat a candidate that never saw them.
    """
    if until is None:
        return np.ones(table.num_rows, bool), (
            f"the champion has no tag {TRAINED_UNTIL}: it may have been fitted on some of these rows",
        )
    new = pc.greater(table.column(TIME), pa.scalar(until, table.schema.field(TIME).type)).to_numpy()
    if new.all():
        return new, ()
    left = f"{new.sum()} of the hold-out's {table.num_rows} rows are later than {until.isoformat()}"
    classes = np.unique(table.column(LABEL).to_numpy()[new])
    if new.sum() < ENOUGH or len(classes) < 2:
        raise PipelineError(
            f"only {left}, up to which it was fitted; it takes {ENOUGH} of them, of both classes. Take later labels"
        )
    return new, (f"compared on what the champion was not fitted on: {left}",)


def _scored_champion(uri: str, model: Model, hold_out: pa.Table) -> Scored:
    """Whatever its own code throws may quote a value, such as a category that it was not taught: only the type is
    told."""
    try:
        return scored(model, hold_out, uri)
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(f"{uri} ended with {type(error).__name__} on the hold-out") from error
