"""Which events a rule is about."""

from collections.abc import Callable
from typing import Any

import pytest

from triggers.reason import Reason
from triggers.rules.match import Match, Mismatch, match
from triggers.rules.model import Candidate, Rule

RULE = """
apiVersion: kfp-triggers/v1
rules:
  r:
    trigger: {trigger}
    run: {{pipeline: every-type@v1}}
"""


@pytest.fixture(scope="session")
def rule(load: Callable[..., Any]) -> Callable[[str], Rule]:
    def make(trigger: str) -> Rule:
        rules, _ = load(RULE.format(trigger=trigger))
        found: Rule = rules.rules["r"]
        return found

    return make


def verdict(rule: Rule, candidate: Candidate) -> Reason | None:
    found = match(rule, candidate)
    return found.reason if isinstance(found, Mismatch) else None


@pytest.mark.parametrize(
    ("glob", "key", "matches"),
    [
        ("incoming/**/*.csv", "incoming/x.csv", True),
        ("incoming/**/*.csv", "incoming/a/b/x.csv", True),
        ("incoming/**/*.csv", "outgoing/x.csv", False),
        ("incoming/**/*.csv", "incoming/x.CSV", False),
        ("incoming/*.csv", "incoming/a/x.csv", False),
        ("incoming/*.csv", "incoming/.hidden.csv", True),
        ("incoming/*.csv", "incoming/two words+plus%.csv", True),
        ("incoming/*.csv", "incoming/x.csv\n", False),
        ("*.csv", "incoming/x.csv", False),
        ("**", "incoming/x.csv", True),
        ("**/*.csv", "/x.csv", True),
        ("in?oming/[a-z].csv", "incoming/x.csv", True),
        ("{a,b}.csv", "a.csv", False),
        ("!x.csv", "y.csv", False),
        ("a|b", "a", False),
        ("*.csv", "../x.csv", False),
    ],
)
def test_a_star_stops_at_a_slash(
    glob: str, key: str, matches: bool, rule: Callable[[str], Rule], candidate: Callable[..., Candidate]
) -> None:
    made = rule(f'{{source: uploads, event: object.created, key: "{glob}"}}')
    assert (verdict(made, candidate(key=key)) is None) is matches


@pytest.mark.parametrize(
    ("trigger", "type_", "data", "reason"),
    [
        ("{source: uploads, event: object.created}", "object.created", {}, None),
        ("{source: uploads, event: object.created}", "object.removed", {}, Reason.OTHER_TYPE),
        ("{source: uploads, event: object.created}", "git.push", {}, Reason.OTHER_SOURCE),
        ("{source: uploads, event: object.created, bucket: user-*}", "object.created", {}, None),
        ("{source: uploads, event: object.created, bucket: other}", "object.created", {}, Reason.FILTERED),
        ("{source: model-repo, event: git.push, branch: main}", "git.push", {}, None),
        ("{source: model-repo, event: git.push, branch: main}", "git.push", {"branch": "dev"}, Reason.FILTERED),
        ("{source: model-repo, event: git.push, branch: '**'}", "git.push", {"branch": ""}, Reason.FILTERED),
        ("{source: model-repo, event: git.push, repository: acme/*}", "git.push", {}, None),
        ("{source: model-repo, event: git.push, paths: [src/**, '*.py']}", "git.push", {"paths": ["a", "b.py"]}, None),
        ("{source: model-repo, event: git.push, paths: [src/**]}", "git.push", {"paths": ["a"]}, Reason.FILTERED),
        ("{source: model-repo, event: git.push, paths: [src/**]}", "git.push", {"paths": []}, Reason.FILTERED),
        (
            "{source: model-repo, event: git.push, paths: [src/**]}",
            "git.push",
            {"paths": ["a"], "paths_complete": False},
            None,
        ),
        ("{source: model-repo, event: git.tag, tag: v*}", "git.tag", {"tag": "v1.4"}, None),
        (
            "{source: drift, event: alert.firing, labels: {a: b}}",
            "alert.firing",
            {"labels": {"a": "b", "c": "d"}},
            None,
        ),
        ("{source: drift, event: alert.firing, labels: {a: b, c: d}}", "alert.firing", {"labels": {"a": "b"}}, "F"),
        ("{source: drift, event: alert.firing, labels: {a: '*'}}", "alert.firing", {"labels": {"a": "b"}}, "F"),
        ("{source: drift, event: alert.firing}", "alert.firing", {}, None),
    ],
)
def test_source_type_and_every_filter_must_match(
    trigger: str,
    type_: str,
    data: dict[str, Any],
    reason: Reason | str | None,
    rule: Callable[[str], Rule],
    candidate: Callable[..., Candidate],
) -> None:
    assert verdict(rule(trigger), candidate(type_, **data)) == (Reason.FILTERED if reason == "F" else reason)


def test_a_fired_rule_is_the_one_that_was_named(
    rule: Callable[[str], Rule], candidate: Callable[..., Candidate]
) -> None:
    made = rule("{source: people, event: manual.fired}")
    assert match(made, candidate("manual.fired", subject="r")) == Match()
    assert verdict(made, candidate("manual.fired", subject="other")) is Reason.FILTERED


def test_a_mismatch_says_what_the_rule_asks_for_and_not_what_the_event_holds(
    rule: Callable[[str], Rule], candidate: Callable[..., Candidate]
) -> None:
    made = rule("{source: uploads, event: object.created, key: '*.csv'}")
    assert match(made, candidate(key="s3cret")) == Mismatch(Reason.FILTERED, "key does not match '*.csv'")


def test_a_hostile_key_is_matched_in_milliseconds(
    rule: Callable[[str], Rule], candidate: Callable[..., Candidate]
) -> None:
    made = rule("{source: uploads, event: object.created, key: '**/a/**/*a*a*a*b'}")
    assert verdict(made, candidate(key="a/" * 512)) is Reason.FILTERED
