"""What holds over rule files as a whole: good ones, warnings, hashes, several files, the published schema."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from triggers.rules import grammar
from triggers.rules.load import load_rules
from triggers.rules.model import GitHead, Mode, ModelAlias, ObjectRows, RuleSet, WhenBusy
from triggers.yamlfile import Problems

GOOD = Path(__file__).parent / "good"
SCHEMA = Path(grammar.__file__).with_name("schema.json")
ONE = """
apiVersion: kfp-triggers/v1
rules:
  one:
    trigger: {source: uploads, event: object.created}
    run: {pipeline: every-type@v1, params: {count: "${event.size}"}}
"""
Load = Callable[..., Any]


def test_the_shipped_rules_load_as_written(shipped: RuleSet) -> None:
    assert list(shipped.rules) == ["retrain-on-drift", "retrain-on-push", "score-new-users"]
    score = shipped.rules["score-new-users"]
    assert score.lookup["model"].request == ModelAlias(name="income-classifier", alias="champion")
    assert score.lookup["ids"].request == ObjectRows(uri="${event.object}", version_id="", at_most=5 << 30)
    assert (score.limits.max, score.limits.when_busy, score.limits.cooldown) == (4, WhenBusy.WAIT, None)
    assert (score.run.backend, score.run.experiment, score.mode) == ("default", "income", Mode.LIVE)
    assert (score.file, score.line) == ("income.yaml", 5)
    drift = shipped.rules["retrain-on-drift"]
    assert drift.lookup["code"].request == GitHead(source="model-repo", repository="acme/income-model", branch="main")
    assert (drift.limits.max, drift.limits.cooldown) == (1, timedelta(hours=6))


def test_what_a_file_leaves_out_has_a_default(load: Load) -> None:
    rule = load(ONE)[0].rules["one"]
    assert (rule.run.backend, rule.run.experiment, rule.mode) == ("default", "", Mode.LIVE)
    assert (rule.run.time_limit, rule.run.caching, rule.run.service_account) == (None, None, "")
    assert (rule.limits.lock, rule.limits.max, rule.limits.when_busy) == (None, 1, WhenBusy.WAIT)


@pytest.mark.parametrize("name", sorted(file.stem for file in GOOD.glob("*.yaml")))
def test_a_good_file_earns_at_most_the_warnings_beside_it(name: str, load: Load) -> None:
    file = GOOD / f"{name}.yaml"
    _, warnings = load(file.read_text(), file=file.name)
    expected = file.with_suffix(".txt")
    assert "".join(f"{warning}\n" for warning in warnings) == (expected.read_text() if expected.exists() else "")


def test_a_hash_is_of_what_a_rule_says_and_not_of_where(load: Load) -> None:
    first = load(ONE)[0]
    moved = load("# moved\n" + ONE.replace("{source: uploads, event", "{event: object.created, source: uploads} #"))[0]
    spelt_out = load(ONE.replace("rules:", "defaults: {backend: default, mode: live}\nrules:"))[0]
    assert first.hash == moved.hash == spelt_out.hash
    assert first.rules["one"].hash == moved.rules["one"].hash == spelt_out.rules["one"].hash


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("${event.size}", "${event.size + 1}"),
        ("one:", "two:"),
        ("rules:", "defaults: {mode: observe}\nrules:"),
        ("rules:", "defaults: {experiment: other}\nrules:"),
        ("object.created", "object.removed"),
    ],
)
def test_another_content_has_another_hash(before: str, after: str, load: Load) -> None:
    assert load(ONE)[0].hash != load(ONE.replace(before, after))[0].hash


def test_a_rule_name_is_unique_over_all_files(load: Load) -> None:
    with pytest.raises(Problems) as caught:
        load(ONE, ONE)
    assert str(caught.value) == ("2.yaml:4: rules.one: the name is taken by the rule in 1.yaml:4: a name is unique")


def test_a_lock_has_one_max_over_all_files(load: Load) -> None:
    limited = ONE + "    limits: {lock: 'gpu/${event.bucket}', max: %d}\n"
    with pytest.raises(Problems, match=r"2.yaml:7: rules.two.limits.max: lock `gpu/\${event.bucket}` has 3 here and 2"):
        load(limited % 2, (limited % 3).replace("one:", "two:"))
    load(limited % 2, (limited % 2).replace("one:", "two:"))


def test_one_bad_file_does_not_hide_anothers_problems(load: Load) -> None:
    with pytest.raises(Problems) as caught:
        load("rules: [", ONE.replace("size", "sise"), "")
    assert [problem.file for problem in caught.value.problems] == ["1.yaml", "2.yaml", "3.yaml"]


def test_no_file_is_an_empty_set(load: Load) -> None:
    rules, warnings = load()
    assert rules.rules == {}
    assert warnings == []


def test_a_backend_is_asked_once_for_a_pipeline() -> None:
    asked: list[tuple[str, str]] = []

    def inputs_of(backend: str, reference: str) -> None:
        asked.append((backend, reference))

    with pytest.raises(Problems):
        load_rules({"a": ONE, "b": ONE.replace("one:", "two:")}, {}, inputs_of)
    assert asked == [("default", "every-type@v1")]


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(SCHEMA.read_text()) == grammar.json_schema()


def test_an_editor_accepts_what_we_accept() -> None:
    validator = jsonschema.Draft202012Validator(grammar.json_schema())
    shipped = Path(__file__).parents[3] / "deploy/rules/income.yaml"
    for file in [shipped, *GOOD.glob("*.yaml")]:
        validator.validate(yaml.safe_load(file.read_text()))
    assert not validator.is_valid({"apiVersion": "kfp-triggers/v1", "rules": {"r": {"triger": {}}}})
