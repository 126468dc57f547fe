"""Which values fit a pipeline's inputs. Each refusal was measured on a real KFP server."""

from collections.abc import Mapping
from typing import Any

import pytest

from triggers.rules.params import MAX_VALUE, misfit, missing, unsafe
from triggers.schema import Input, Inputs


@pytest.fixture
def every_type(declared: Mapping[str, Inputs]) -> Mapping[str, Input]:
    found = declared["every-type@v1"]
    assert isinstance(found, Mapping)
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", ""),
        ("text", "ünïcode 中"),
        ("text", "{ {x} }} ${y}"),
        ("count", 0),
        ("count", -(1 << 53)),
        ("ratio", 1),
        ("ratio", 1.5),
        ("flag", False),
        ("items", []),
        ("items", [1, None, {"a": True}]),
        ("options", {}),
        ("as_of", "2026-01-02T03:04:05Z"),
        ("as_of", "2026-01-02T03:04:05.123456+02:00"),
    ],
)
def test_the_right_type_fits(name: str, value: Any, every_type: Mapping[str, Input]) -> None:
    assert misfit(name, value, every_type) == ""


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("text", 5, "must be text"),
        ("text", None, "must be text (STRING), and is null"),
        ("count", "5", "must be a whole number"),
        ("count", True, "must be a whole number (NUMBER_INTEGER), and is true or false"),
        ("count", 1.5, "must be a whole number (NUMBER_INTEGER), and is a number with a point"),
        ("count", 1.0, "must be a whole number"),
        ("count", (1 << 53) + 1, "beyond 2^53"),
        ("ratio", True, "must be a number"),
        ("ratio", "1.5", "must be a number"),
        ("ratio", float("nan"), "not a finite number"),
        ("ratio", float("inf"), "not a finite number"),
        ("flag", 1, "must be true or false"),
        ("items", "[]", "must be a list"),
        ("items", [float("-inf")], "not a finite number"),
        ("options", [], "must be a map"),
        ("options", {"a": {"b": [1 << 60]}}, "beyond 2^53"),
        ("text", "a{{workflow.name}}", "holds `{{`"),
        ("items", [["{{=1+1}}"]], "holds `{{`"),
        ("options", {"a": {"{{x": 1}}, "holds `{{`"),
        ("text", "\U0001f600", "4-byte character"),
        ("options", {"\U0001f600": 1}, "4-byte character"),
        ("text", "\ud800", "half a character"),
        ("text", "x" * MAX_VALUE, "longer than 64 KiB"),
        ("items", ["ü" * (MAX_VALUE // 2)], "longer than 64 KiB"),
        ("as_of", "2026-01-02T03:04:05", "a time with its zone"),
        ("as_of", "", "a time with its zone"),
        ("txt", "x", "the pipeline has no input `txt`; did you mean `text`?"),
    ],
)
def test_anything_else_is_refused_and_not_repeated(
    name: str, value: Any, complaint: str, every_type: Mapping[str, Input]
) -> None:
    assert complaint in misfit(name, value, every_type)
    assert "workflow" not in misfit(name, value, every_type).removeprefix("holds `{{`, which the workflow engine")


def test_what_must_be_given_is_missed() -> None:
    inputs = {"a": Input(type="STRING", optional=False), "b": Input(type="STRING", optional=True)}
    assert missing({}, inputs) == ["a"]
    assert missing({"a": ""}, inputs) == []


def test_a_value_is_judged_also_when_nothing_is_known_of_the_pipeline() -> None:
    assert "holds `{{`" in unsafe({"a": ["{{"]})
    assert unsafe({"a": ["{"]}) == ""
