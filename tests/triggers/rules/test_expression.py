"""What expressions and templates give, what they refuse, and what they say about it."""

from typing import Any

import pytest

from triggers.rules.expression import Context, Expression, ExpressionError, RuleError
from triggers.rules.functions import CALLABLE, OURS
from triggers.rules.template import Template, evaluate_value, parse_value

EVENT = {
    "key": "a/b.csv",
    "size": 3,
    "ratio": 2.0,
    "half": 0.5,
    "ok": True,
    "paths": ["x", "y"],
    "labels": {"team": "s3cret", "none": None},
}


@pytest.fixture
def context() -> Context:
    return Context({"event": EVENT})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${event.size}", 3),
        ("${event.size + 1}", 4),
        ("${event.ratio}", 2.0),
        ("${event.ok}", True),
        ("${event.paths}", ["x", "y"]),
        ("${event.labels}", {"team": "s3cret", "none": None}),
        ("${event.labels.none}", None),
        (" ${event.size}", " 3"),
        ("${event.size}${event.size}", "33"),
        ("v${event.ratio}", "v2"),
        ("v${event.half}", "v0.5"),
        ("is ${event.ok}", "is true"),
        ("$${event.size}", "${event.size}"),
        ("$$${event.size}", "$${event.size}"),
        ("costs 5$ or $5", "costs 5$ or $5"),
        ("${ {'a': 1}['a'] }", 1),
        ("${'}'}", "}"),
        ('${"}"}', "}"),
        ('${"\\"}"}', '"}'),
        ("${r'\\'}", "\\"),
        ("${'''a'}'''}", "a'}"),
        ("${event.key // not here }\n}", "a/b.csv"),
        ("${[1, 2].map(x, {'n': x})}", [{"n": 1}, {"n": 2}]),
        ("${default(event.labels, 'team', 'x')}", "s3cret"),
        ("${default(event.labels, 'nobody', 'x')}", "x"),
        ("${default(event.labels, 'none', 'x')}", "x"),
        ("${slug('Über die Höhe/2')}", "ber-die-h-he-2"),
        ("${basename(event.key)}", "b.csv"),
        ("${event.key.split('/')[0].upperAscii()}", "A"),
        ("${int(math.ceil(event.half))}", 1),
        ("${timestamp('2026-01-02T03:04:05Z') + duration('1h')}", "2026-01-02T04:04:05.000000Z"),
        ("${first(event.paths)}", "x"),
        ("${'z' in event.paths ? 1 : 2}", 2),
    ],
)
def test_one_expression_keeps_its_type_and_mixed_text_is_a_string(source: str, value: Any, context: Context) -> None:
    found = Template.parse(source).evaluate(context)
    assert found == value
    assert type(found) is type(value)


def test_templates_are_found_at_any_depth(context: Context) -> None:
    value = {"a": ["${event.size}", {"b": "n${event.size}"}], "${event.size}": 1, "c": None}
    assert evaluate_value(parse_value(value), context) == {"a": [3, {"b": "n3"}], "${event.size}": 1, "c": None}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("${event.size", "has no `}`"),
        ("${'}", "not CEL"),
        ("${(]}", "has no `}`"),
        ("${}", "not CEL"),
        ("${1 +}", "not CEL: unexpected end at character 4"),
        ("${a b}", "not CEL"),
        ("${open('/etc/passwd')}", "no function `open`"),
        ("${event.key.startWith('a')}", "did you mean `startsWith`?"),
        ("${event.paths.all(x, event.paths.all(y, x == y))}", "`all` inside `all`"),
        ("${[1].map(x, [2].filter(y, true))}", "`filter` inside `map`"),
        ("${[1].existsOne(x, [2].exists_one(y, true))}", "`exists_one` inside `existsOne`"),
        ("${event.paths.exists(x, x.matches('(a{50}){50}'))}", "`matches` inside `exists`"),
        ("${" + "'" + "a" * 1000 + "'}", "longer than 1000 bytes"),
        ("${" + "(" * 300 + "1" + ")" * 300 + "}", "nested too deep"),
    ],
)
def test_what_no_rule_may_hold_is_refused_when_it_loads(source: str, complaint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Template.parse(source)
    assert complaint in str(caught.value)


def test_one_macro_after_the_other_is_fine(context: Context) -> None:
    assert Template.parse("${event.paths.map(x, x + x).filter(y, y != 'xx')}").evaluate(context) == ["yy"]


@pytest.mark.parametrize(
    ("source", "detail", "by_value"),
    [
        ("event.labels.nobody", "there is no `nobody`", True),
        ("event.labels[event.key]", "a key is missing", True),
        ("event.paths[7]", "an index is outside its list", True),
        ("1 / 0", "division by zero", True),
        ("9223372036854775807 + event.size", "a number is out of range", True),
        ("int(event.labels.team)", "`int` refuses its arguments", True),
        ("bool(event.labels.team)", "`bool` refuses its arguments", True),
        ("'a'.matches(event.key + '[')", "`matches` refuses its arguments", True),
        ("lists.range(1001)", "`lists.range` refuses its arguments", True),
        ("event.size + 1.0", "the types do not fit", False),
        ("event.key + event.size", "the types do not fit", False),
        ("split(event.size, ',')", "`split` refuses its arguments: wrong type or number", False),
        ("slug()", "`slug` refuses its arguments: wrong type or number", False),
        ("evnt.size", "there is no 'evnt'", False),
        ("duration('1h')", "gives a duration; make it a string", False),
        ("b'abc'", "gives a bytes value; make it a string", False),
        ("{1: 2}", "gives a map with keys that are not strings", False),
    ],
)
def test_a_failure_names_the_expression_and_never_the_event(
    source: str, detail: str, by_value: bool, context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    expression = Expression.parse(source)
    with pytest.raises(RuleError) as caught:
        expression.evaluate(context)
    assert caught.value.detail.startswith(f"`{source}`: {detail}")
    assert caught.value.by_value is by_value
    assert "s3cret" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_text_that_would_grow_without_end_is_refused() -> None:
    context = Context({"event": {"key": "k" * 1024}})
    bomb = Expression.parse("event.key.replace('', event.key).replace('', event.key)")
    with pytest.raises(RuleError, match="`replace` refuses its arguments"):
        bomb.evaluate(context)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"items": [0] * 1001}, "`event.items` is longer than 1000 items"),
        ({"items": {str(number): 0 for number in range(1001)}}, "`event.items` is longer than 1000 items"),
        ({"items": {"PAYLOAD": [0] * 1001}}, "`event.items` is longer than 1000 items"),
        ({"size": 1 << 63}, "`event.size` is no 64-bit integer"),
        ({"text": "\ud800"}, "`event` holds what an expression cannot see"),
        ({"text": object()}, "`event` holds what an expression cannot see"),
    ],
)
def test_what_an_expression_may_not_see_is_a_rule_error(data: Any, complaint: str) -> None:
    with pytest.raises(RuleError) as caught:
        Context({"event": data})
    assert caught.value.detail.startswith(complaint)
    assert "PAYLOAD" not in caught.value.detail


def test_a_deep_value_is_a_rule_error() -> None:
    deep: Any = 0
    for _ in range(900):
        deep = [deep]
    with pytest.raises(RuleError, match="nested deeper than 40"):
        Context({"event": {"deep": deep}})


def test_a_mixed_text_takes_no_list_map_or_null(context: Context) -> None:
    for source, kind in [("event.paths", "a list"), ("event.labels", "a map"), ("null", "null")]:
        with pytest.raises(RuleError, match=f"gives {kind}, which cannot be part of a text"):
            Template.parse(f"x${{{source}}}").evaluate(context)


def test_every_function_of_ours_is_published_and_says_what_it_does() -> None:
    assert set(OURS) <= CALLABLE
    assert all((function.__doc__ or "").startswith(f"{name}(") for name, function in OURS.items())
