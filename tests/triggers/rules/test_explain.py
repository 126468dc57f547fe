"""What `rules explain` says of one event."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from triggers.reason import Reason
from triggers.rules.decision import Facts, LookupProblem
from triggers.rules.explain import Planned, explain, sample_facts
from triggers.rules.model import Candidate, Rule, RuleSet
from triggers.schema import Inputs

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_every_rule_says_whether_it_matches_why_not_and_what_would_run(
    shipped: RuleSet, candidate: Callable[..., Candidate], declared: Mapping[str, Inputs]
) -> None:
    def facts_of(rule: Rule, planned: Planned) -> Facts:
        return sample_facts(rule, planned, declared[rule.run.pipeline], NOW)

    drift, push, score = explain(shipped, candidate(), facts_of)
    assert (drift["matched"], drift["reason"]) == (False, "other_source")
    assert (push["rule"], push["detail"]) == ("retrain-on-push", "the rule listens to `model-repo`")
    assert (score["matched"], score["outcome"], score["reason"]) == (True, "run", "matched")
    assert score["asked"]["model"] == {"kind": "ModelAlias", "name": "income-classifier", "alias": "champion"}
    assert score["lookups"]["ids"] == {"rows": 1000}
    assert score["params"]["model_version"] == 1
    assert json.loads(json.dumps(score)) == score


def test_a_lookup_that_gave_nothing_is_shown(
    shipped: RuleSet, candidate: Callable[..., Candidate], declared: Mapping[str, Inputs]
) -> None:
    away = LookupProblem(reason=Reason.LOOKUP_UNAVAILABLE, detail="no answer")

    def facts_of(rule: Rule, planned: Planned) -> Facts:
        return sample_facts(rule, dict.fromkeys(planned, away), declared[rule.run.pipeline], NOW)

    score = explain(shipped, candidate(), facts_of)[2]
    assert score["lookups"]["model"] == {"reason": "lookup_unavailable", "detail": "no answer"}
    assert (score["outcome"], score["ask_again_at"]) == ("wait", "2026-11-21T00:00:30.000000Z")
