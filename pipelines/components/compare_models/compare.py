"""The gate: champion and candidate score the same hold-out, and a verdict comes of it. Called by component.py.

Nothing is moved here. The service moves the alias, by compare-and-set against the champion that is named in the
verdict: whoever was promoted meanwhile makes this verdict a lost one.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient

from pipelines.components.compare_models.account import account
from pipelines.components.compare_models.figures import Scored
from pipelines.components.compare_models.rule import Rule
from pipelines.components.compare_models.verdict import Verdict, judge, judged_part, undecided, unopposed
from pipelines.errors import PipelineError
from pipelines.model_flavors import HIGH
from pipelines.page import publish
from pipelines.registered_model import Model, check_columns, load_folder, load_model
from pipelines.registry_errors import registry
from pipelines.report import Step, model_version
from pipelines.slices import slices_of

ALIAS = "champion"
LABEL = "income"
PAGE = "comparison.html"
AT_MOST = 100  # slices: the service reads no more


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
        champion, verdict = 0, unopposed(rule, ours, candidate.version)
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


def _against(champion: int, name: str, ours: Scored, table: pa.Table, rule: Rule) -> Verdict:
    """A champion that is gone, or wants other columns, or does not load here, is a person's to decide about: the new
    version may be the cure, and may be what broke it. An error would only lose the training."""
    parts = slices_of(table, rule.slices)
    if len(parts) > AT_MOST:
        raise PipelineError(f"slices makes {len(parts)} parts of the hold-out, more than {AT_MOST}; name fewer columns")
    try:
        theirs = scored(load_model(name, champion), table, f"models:/{name}/{champion}")
    except PipelineError as problem:
        return undecided(rule, ours, str(problem))
    judged = tuple(judged_part(rule, part, ours.only(rows), theirs.only(rows)) for part, rows in parts.items())
    return judge(rule, ours, theirs, judged)
