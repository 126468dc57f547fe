"""The shape of a rule file: keys, types, words. Published as `schema.json` for editors.

`load` reads files with it; what a shape cannot say (schemas of events, expressions, pipelines) stands in `check`.
Verbs that are designed but not built yet are listed here, so that a file which uses one is told so and not "unknown
key".
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

API_VERSION = "kfp-triggers/v1"
RULE_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
LOOKUP_NAME = r"[a-z][a-z0-9_]{0,62}"

#: Globs of a trigger by event type; `labels` is compared for equality.
FILTERS: Mapping[str, tuple[str, ...]] = {
    "object.created": ("bucket", "key"),
    "object.removed": ("bucket", "key"),
    "git.push": ("repository", "branch", "paths"),
    "git.merged": ("repository", "branch", "paths"),
    "git.tag": ("repository", "tag"),
    "git.release": ("repository", "tag"),
    "alert.firing": ("labels",),
    "alert.resolved": ("labels",),
    "model.alias": ("model", "alias"),
    "model.version": ("model",),
    "manual.fired": (),
}

#: Designed, not built: (path inside the rule) → what to use for now. A word after `=` is a value of that key.
NOT_BUILT: Mapping[str, str] = {
    "limits.collect": "leave it out; every event makes a run of its own",
    "limits.when_busy=replace_waiting": "write `wait` or `skip`",
    "limits.when_busy=cancel_running": "write `wait` or `skip`",
    "mode=approve": "write `live`, `observe` or `paused`",
    "require[].else=approve": "write `skip`",
}


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


Text = Annotated[str, Field(min_length=1)]

#: What a budget may be `per`.
SPANS: Mapping[str, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


class Defaults(_Shape):
    """What every rule of this file has unless it says otherwise."""

    backend: Text = "default"
    experiment: Text | None = None
    caching: bool | None = None
    service_account: Text | None = None
    pipeline_root: Text | None = None
    time_limit: Text | None = None
    mode: Literal["live", "observe", "paused"] = "live"


class RepeatShape(_Shape):
    """An alert that still fires is put to the rule again."""

    every: Text = Field(description="so long after the rule's last decision on it, e.g. 6h")


def _once(value: Any) -> Any:
    if isinstance(value, str) and value != "once":
        raise ValueError("must be `once`, or `{every: 6h}`")
    return None if value == "once" else value


Repeat = Annotated[
    RepeatShape | None,
    BeforeValidator(_once),
    WithJsonSchema(
        {
            "anyOf": [{"const": "once"}, RepeatShape.model_json_schema()],
            "default": "once",
            "description": "alert.firing only. `once`: an alert is one event however often it is told",
        }
    ),
]


class TriggerShape(_Shape):
    """Which events the rule is about."""

    source: Text = Field(description="a source of sources.yaml")
    event: Text = Field(description="an event type of that source, e.g. object.created")
    bucket: Text | None = Field(default=None, description="Glob. object.* only")
    key: Text | None = Field(default=None, description="Glob over the object's key; `*` stops at `/`, `**` does not")
    repository: Text | None = Field(default=None, description="Glob, e.g. acme/income-model. git.* only")
    branch: Text | None = Field(default=None, description="Glob. git.push and git.merged only")
    tag: Text | None = Field(default=None, description="Glob. git.tag and git.release only")
    paths: list[Text] | None = Field(
        default=None, min_length=1, description="Globs; one changed path that matches is enough"
    )
    model: Text | None = Field(default=None, description="Glob, e.g. income-classifier. model.* only")
    alias: Text | None = Field(default=None, description="Glob, e.g. champion. model.alias only")
    labels: dict[str, str] | None = Field(default=None, description="Labels that the alert must have, all of them")
    repeat: Repeat = None


class GitHeadShape(_Shape):
    """A branch of a configured git source."""

    source: Text = Field(description="a git source of sources.yaml")
    repository: Text = Field(description="e.g. acme/income-model")
    branch: Text = Field(description="e.g. main")


class LookupShape(_Shape):
    """A value fetched from the world; exactly one of the three kinds. `${…}` may use the event only."""

    mlflow_model: Text | None = Field(default=None, description="With `alias`: gives name, alias, version, run_id")
    alias: Text | None = None
    object_rows: Text | None = Field(default=None, description="URI of an object: gives rows")
    at_most: Text | None = Field(
        default=None, description="With object_rows: a larger object is not read. Default 1GiB"
    )
    git_head: GitHeadShape | None = Field(default=None, description="The branch's newest known commit: gives url, sha")


class RequirementShape(_Shape):
    """A condition in bare CEL."""

    expr: Text = Field(description="bare CEL that gives true or false")
    otherwise: Literal["skip"] = Field(default="skip", alias="else")
    reason: Text = Field(description="what people read when it does not hold")


class RunShape(_Shape):
    """The run to make: of exactly one of `pipeline`, `package` and `package_from_commit`."""

    pipeline: Text | None = Field(default=None, description="name@version; name@latest must be written out")
    package: Text | None = Field(default=None, description="A compiled file, its path below the home")
    package_from_commit: Text | None = Field(
        default=None, description="A compiled file, its path in the pushed commit; the source must allow `packages`"
    )
    params: dict[str, Any] = Field(default_factory=dict)
    secrets: dict[str, Any] = Field(
        default_factory=dict,
        description="Inputs that take a secret: {env: NAME} or {file: PATH} each. The settings must allow it",
    )
    document: dict[str, Any] = Field(
        default_factory=dict,
        description="Values of any size and text for the event document, whose URI the input `event_uri` is given",
    )
    reads: list[Text] = Field(default_factory=list, description="URIs that the run reads, for lineage")
    writes: list[Text] = Field(
        default_factory=list, description="URIs that it writes: lineage, and no rule feeds itself"
    )
    backend: Text | None = Field(default=None, description="by its name in the settings. Default `default`")
    experiment: Text | None = Field(default=None, description="made when absent")
    caching: bool | None = Field(default=None, description="of all steps; left out: as the pipeline was compiled")
    service_account: Text | None = Field(default=None, description="Kubernetes service account of the run's pods")
    pipeline_root: Text | None = Field(default=None, description="where the run's artifacts go")
    time_limit: Text | None = Field(default=None, description="e.g. 2h; then it is cancelled and its lock released")


class BudgetShape(_Shape):
    """So many runs in any hour, day or week."""

    runs: int = Field(ge=1, le=1000, description="how many runs of the rule")
    per: Literal["hour", "day", "week"] = Field(description="hour, day or week")


class LimitsShape(_Shape):
    """How often and how many at once."""

    lock: Text | None = Field(default=None, description="A name held across rules; `${…}` may use event and rule")
    max: int | None = Field(default=None, ge=1, le=1000, description="Slots of the lock. Default 1")
    when_busy: Literal["wait", "skip"] | None = Field(default=None, description="Default wait")
    cooldown: Text | None = Field(default=None, description="e.g. 6h since the rule's last run")
    tries: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="alert.firing only. Runs that may fail to end an alert; then it gives up",
    )
    budget: BudgetShape | None = Field(default=None, description="e.g. {runs: 4, per: day}")


class AnswerShape(_Shape):
    """What the code host is told of a run that a push made."""

    status: bool = Field(default=True, description="A commit status: pending, then how the run ended")
    comment: bool = Field(default=True, description="One comment with the metrics, when the run has ended")


class RuleShape(_Shape):
    """One rule."""

    description: str = ""
    trigger: TriggerShape = Field(description="which events it is about")
    lookup: dict[Annotated[str, Field(pattern=f"^{LOOKUP_NAME}$")], LookupShape] = Field(default_factory=dict)
    require: list[RequirementShape] = Field(default_factory=list)
    run: RunShape = Field(description="which pipeline to run, with what")
    limits: LimitsShape = Field(default_factory=LimitsShape)
    answer: AnswerShape | None = Field(default=None, description="git.* only. Tell the code host how the run went")
    mode: Literal["live", "observe", "paused"] | None = None


class FileShape(_Shape):
    """A rule file."""

    apiVersion: Literal["kfp-triggers/v1"] = Field(description="write `apiVersion: kfp-triggers/v1`")  # noqa: N815 - the key that Kubernetes users know
    defaults: Defaults = Field(default_factory=Defaults)
    rules: dict[Annotated[str, Field(pattern=f"^{RULE_NAME}$")], RuleShape] = Field(
        description="the rules by name; `rules: {}` for none"
    )


def json_schema() -> dict[str, Any]:
    """What `schema.json` holds."""
    schema = FileShape.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "kfp-triggers rule file"}
