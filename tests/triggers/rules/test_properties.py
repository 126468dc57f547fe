"""What holds for any text and any event: loading ends in rules or Problems, deciding always in a Decision."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers.rules.decision import Decision, Facts, LookupProblem, decide, lock_of, plan
from triggers.rules.expression import Context, Expression, ExpressionError, RuleError
from triggers.rules.gate import History
from triggers.rules.match import match
from triggers.rules.model import Candidate, Rule
from triggers.rules.scan import closing_brace, mentions
from triggers.rules.template import Template
from triggers.schema import Inputs
from triggers.yamlfile import Problem, Problems

NOW = datetime(2026, 11, 21, tzinfo=UTC)
CURIOUS = """
apiVersion: kfp-triggers/v1
rules:
  curious:
    trigger: {source: uploads, event: object.created, key: "**/*a*"}
    lookup: {ids: {object_rows: "${event.object}"}}
    require: [{expr: "event.size >= 0 || lookup.ids.rows > 0", reason: none}]
    run:
      pipeline: every-type@v1
      params:
        text: "${event.key} ${event.stem}"
        count: "${event.size}"
        ratio: "${double(event.size)}"
        flag: "${event.ext == '.csv'}"
        items: ["${event.name}", "${event.key.split('/').map(part, slug(part))}"]
        options: "${event.metadata}"
      writes: ["s3://x/${params.text}/${run.key}"]
    limits: {lock: "${event.bucket}"}
"""
FRAGMENTS = ["${", "$${", "}", "{", "'", '"', "'''", "r'", "\\", "//", "\n", "(", ")", "[", "]", ".", ","]
WORDS = [
    "event",
    "key",
    "size",
    "labels",
    "map",
    "all",
    "x",
    "in",
    "1",
    "0.5",
    "+",
    "==",
    "&&",
    "?",
    ":",
    "-",
    "a",
    "😀",
]
texts = st.lists(st.sampled_from(FRAGMENTS + WORDS + [" "]) | st.text(max_size=3), max_size=25).map("".join)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=4)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
FIELDS = ["object", "bucket", "key", "name", "stem", "ext", "size", "metadata", "version_id"]
quick = settings(max_examples=80, deadline=None)


@pytest.fixture(scope="session")
def curious(load: Callable[..., Any]) -> Rule:
    rule: Rule = load(CURIOUS)[0].rules["curious"]
    return rule


def complaints_about(text: str, load: Callable[..., Any]) -> list[Problem]:
    try:
        load(text)
    except Problems as found:
        return found.problems
    return []


@quick
@given(text=texts)
def test_a_template_is_compiled_or_refused(text: str) -> None:
    try:
        template = Template.parse(text)
    except ExpressionError:
        return
    try:
        template.evaluate(Context({"event": {"key": "a", "size": 1, "labels": {}}}))
    except RuleError:
        return


@quick
@given(text=texts)
def test_an_expression_is_compiled_or_refused(text: str) -> None:
    mentions(text)
    assert closing_brace(text, 0) < len(text)
    try:
        Expression.parse(text).evaluate(Context({"event": {"key": "a", "size": 1, "labels": {}}}))
    except (ExpressionError, RuleError):
        return


@quick
@given(text=st.text())
def test_text_without_a_template_is_itself(text: str) -> None:
    plain = text.replace("$", "")
    assert Template.parse(plain).evaluate(Context({})) == plain
    assert Template.parse(plain.replace("${", "$${")).evaluate(Context({})) == plain


@quick
@given(data=st.data())
def test_any_event_ends_in_a_decision(
    data: st.DataObject, curious: Rule, candidate: Callable[..., Candidate], declared: Mapping[str, Inputs]
) -> None:
    event = candidate(**data.draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4)))
    lookups = data.draw(
        st.sampled_from([{}, {"ids": {"rows": 3}}, {"ids": {}}]) | st.dictionaries(st.text(), st.just({}))
    )
    planned = plan(curious, event)
    problems = {name: one for name, one in planned.items() if isinstance(one, LookupProblem)}
    match(curious, event)
    lock_of(curious, event)
    facts = Facts(
        lookups={**lookups, **problems},
        history=History(),
        inputs=declared["every-type@v1"],
        report_uri="",
        now=NOW,
    )
    found = decide(curious, event, facts)
    assert isinstance(found, Decision)
    assert found.detail or found.outcome == "run"
    if found.outcome == "run":
        json.dumps(dict(found.params), allow_nan=False).encode()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_mangled_file_loads_or_complains_at_a_line(data: st.DataObject, load: Callable[..., Any]) -> None:
    start = data.draw(st.integers(0, len(CURIOUS)))
    end = data.draw(st.integers(start, min(len(CURIOUS), start + 30)))
    mangled = CURIOUS[:start] + data.draw(texts) + CURIOUS[end:]
    for problem in complaints_about(mangled, load):
        assert problem.line >= 1
        assert problem.message


@quick
@given(value=values)
def test_any_yaml_like_value_of_a_parameter_is_said_at_its_line(value: Any, load: Callable[..., Any]) -> None:
    try:
        text = json.dumps(value)
    except TypeError:
        return
    run = f"    run: {{pipeline: every-type@v1, params: {{text: {text}, options: {text}}}}}\n"
    head = "apiVersion: kfp-triggers/v1\nrules:\n  r:\n    trigger: {source: uploads, event: object.created}\n"
    assert all(problem.line >= 1 for problem in complaints_about(head + run, load))
