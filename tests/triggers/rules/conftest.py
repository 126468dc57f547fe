"""The world that the rule files of these tests are loaded against: three sources, two pipelines, and how to ask."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from triggers.event import Event
from triggers.rules.load import load_rules
from triggers.rules.model import Candidate, RuleSet
from triggers.schema import EventSchema, Input, Inputs, SourceFacts
from triggers.yamlfile import Problem

OBJECT = {
    "object": "s3://user-ids/incoming/2026-11-21.csv",
    "bucket": "user-ids",
    "key": "incoming/2026-11-21.csv",
    "dir": "incoming",
    "name": "2026-11-21.csv",
    "stem": "2026-11-21",
    "ext": ".csv",
    "size": 1024,
    "etag": "d41d8cd98f00b204e9800998ecf8427e",
    "version_id": "",
    "content_type": "text/csv",
    "metadata": {"team": "growth"},
}
PUSH = {
    "repository": "acme/income-model",
    "clone_url": "https://git.example/acme/income-model.git",
    "ref": "refs/heads/main",
    "branch": "main",
    "tag": "",
    "sha": "f" * 40,
    "before": "e" * 40,
    "paths": ["model.py"],
    "message": "better",
    "author": "Ada",
    "forced": False,
}
ALERT = {
    "alertname": "Sample",
    "labels": {"alertname": "Sample"},
    "annotations": {"summary": "it drifts"},
    "starts_at": "2026-11-21T10:00:00Z",
    "ends_at": "",
    "fingerprint": "0123456789abcdef",
    "receiver": "kfp-triggers",
    "group_key": "{}",
    "generator_url": "",
    "truncated": 0,
}
_WORDS = {str: "string", int: "int", bool: "bool", list: "list", dict: "map"}


def _schema(sample: Mapping[str, Any]) -> EventSchema:
    return EventSchema(fields={name: _WORDS[type(value)] for name, value in sample.items()}, sample=sample)


SOURCES = {
    "uploads": SourceFacts(type="minio", events={"object.created": _schema(OBJECT), "object.removed": _schema(OBJECT)}),
    "model-repo": SourceFacts(type="gitlab", events={"git.push": _schema(PUSH), "git.tag": _schema(PUSH)}),
    "drift": SourceFacts(
        type="alertmanager", events={"alert.firing": _schema(ALERT), "alert.resolved": _schema(ALERT)}
    ),
    "people": SourceFacts(type="manual", events={"manual.fired": _schema({"by": "ada"})}),
}


def _inputs(*, optional: tuple[str, ...] = (), **types: str) -> dict[str, Input]:
    return {name: Input(type=type_, optional=name in optional) for name, type_ in types.items()}


_COMMON = {"feature_store_bucket_name": "STRING", "feature_store_config_file_name": "STRING", "feature_list": "LIST"}
_OURS = {"as_of": "STRING", "run_key": "STRING", "report_uri": "STRING"}
PIPELINES: Mapping[str, Inputs] = {
    "income-batch-inference@v1": _inputs(
        optional=("entity_df_etag", "model_type"),
        entity_df_bucket="STRING",
        entity_df_filename="STRING",
        entity_df_version="STRING",
        entity_df_etag="STRING",
        model_name="STRING",
        model_version="NUMBER_INTEGER",
        model_type="STRING",
        output_bucket="STRING",
        output_file_name="STRING",
        **_COMMON,
        **_OURS,
    ),
    "income-training@v1": _inputs(
        optional=("since", "newest"),
        newest="NUMBER_INTEGER",
        repository="STRING",
        revision="STRING",
        labels_uri="STRING",
        since="STRING",
        model_name="STRING",
        reason="STRING",
        **_COMMON,
        **_OURS,
    ),
    "every-type@v1": _inputs(
        optional=("text", "count", "ratio", "flag", "items", "options", "as_of", "output_path"),
        text="STRING",
        count="NUMBER_INTEGER",
        ratio="NUMBER_DOUBLE",
        flag="BOOLEAN",
        items="LIST",
        options="STRUCT",
        as_of="STRING",
        output_path="STRING",
    ),
    "collector@v1": _inputs(manifest_uri="STRING"),
}


def inputs_of(backend: str, reference: str) -> Inputs:
    """What a real backend says, also when it is away or has no such package."""
    if backend == "away" or reference.startswith("commit:"):  # a commit's package is known when it is pushed
        return None
    known = ", ".join(sorted(PIPELINES))
    return PIPELINES.get(reference, f"no package {reference} in packages/; there are {known}")


@pytest.fixture(scope="session")
def declared() -> Mapping[str, Inputs]:
    return PIPELINES


@pytest.fixture(scope="session")
def load() -> Callable[..., tuple[RuleSet, list[Problem]]]:
    """Load texts as files `1.yaml`, `2.yaml`, ... or one under its own name."""

    def load_texts(*texts: str, file: str = "") -> tuple[RuleSet, list[Problem]]:
        names = [file] if file else [f"{number}.yaml" for number, _ in enumerate(texts, 1)]
        return load_rules(dict(zip(names, texts, strict=True)), SOURCES, inputs_of)

    return load_texts


@pytest.fixture(scope="session")
def shipped(load: Callable[..., tuple[RuleSet, list[Problem]]]) -> RuleSet:
    """The income rules that we ship."""
    text = (Path(__file__).parents[3] / "deploy/rules/income.yaml").read_text()
    rules, warnings = load(text, file="income.yaml")
    assert warnings == []
    return rules


_SAMPLES = {"object": ("uploads", OBJECT), "git": ("model-repo", PUSH), "alert": ("drift", ALERT)}
EVENT_TIME = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """An event of the type with the sample's data, and what the test changes in it."""

    def make(
        type_: str = "object.created", *, source: str = "", subject: str = "", generation: int = 0, **data: Any
    ) -> Candidate:
        name, sample = _SAMPLES.get(type_.partition(".")[0], ("people", {"by": "ada"}))
        event = Event(type=type_, subject=subject, time=EVENT_TIME, data={**sample, **data}, identity="one")
        return Candidate(event=event, event_id="01EVENT", source=source or name, generation=generation)

    return make
