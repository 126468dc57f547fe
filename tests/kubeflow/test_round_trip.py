"""Every KFP type, unicode, 10 kB and hostile text, from an event through a rule to the run that the server stored."""

import json
from typing import Any

import pytest
from kfpworld import Place, decide, drop, runs, submitted, work

from service.lifecycle import State
from service.records import Query
from triggers.reason import Reason

TYPED: dict[str, Any] = {
    "s": "STRING",
    "i": "NUMBER_INTEGER",
    "f": "NUMBER_DOUBLE",
    "b": "BOOLEAN",
    "l": "LIST",
    "d": "STRUCT",
}
PACKAGE = {
    "components": {"comp-a": {"executorLabel": "exec-a"}},
    "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "registry.example/a"}}}},
    "pipelineInfo": {"name": "typed"},
    "root": {
        "dag": {"tasks": {"a": {"componentRef": {"name": "comp-a"}, "taskInfo": {"name": "a"}}}},
        "inputDefinitions": {"parameters": {name: {"parameterType": kind} for name, kind in TYPED.items()}},
    },
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
}
PARAMS = {
    "s": "${event.key}",
    "i": "${event.size}",
    "f": "${double(event.size) / 8.0}",
    "b": "${event.size > 1}",
    "l": ["${event.key}", 1, 2.5, True, None, ["${event.size}"], {}],
    "d": {"key": "${event.key}", "nested": {"list": [1, "x", None], "size": "${event.size}"}, "empty": ""},
}
RULE = {
    "apiVersion": "kfp-triggers/v1",
    "rules": {
        "typed": {
            "trigger": {"source": "uploads", "event": "object.created"},
            "run": {"pipeline": "typed@v1", "params": PARAMS},
        }
    },
}
TEXTS = {
    "plain": "incoming/a.csv",
    "unicode": "incoming/Grüße 日本語 ελληνικά עברית ✓.csv",
    "long": "incoming/" + "x" * 850 + "/é" * 40,  # a key has at most 1,024 bytes
    "quotes": "in'c\"o`m$(id)&;|<>\\.csv",
    "percent": "100%25+%2F a+b%.csv",
    "spaces": " leading and trailing ",
    "braces": "{}/{ {/}}/${x}.csv",
    "sql": "'; DROP TABLE run_details; --",
    "controls": "tab\tnew\nline",
    "html": "<script>alert(1)</script>",
    "number": "5",
    "null": "null",
}


@pytest.fixture
def typed(place: Place) -> Place:
    place.push(PACKAGE)
    place.rules(json.dumps(RULE))
    return place


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_rule_computes_is_what_the_server_stores(typed: Place, name: str) -> None:
    text = TEXTS[name]
    with typed.opened() as app:
        decide(app, drop(app, text, size=4503599627370496))
        work(app, lambda: runs(app) and submitted(app))
        (run,) = runs(app)
        stored = typed.stub.http.get(f"/apis/v2beta1/runs/{run.backend_id}").json()
    expected = {
        "s": text,
        "i": 4503599627370496,
        "f": 562949953421312.0,
        "b": True,
        "l": [text, 1, 2.5, True, None, [4503599627370496], {}],
        "d": {"key": text, "nested": {"list": [1, "x", None], "size": 4503599627370496}, "empty": ""},
    }
    assert stored["runtime_config"]["parameters"] == expected
    assert stored["display_name"].split()[-1] == run.run_key
    assert len(stored["display_name"]) <= 255
    assert run.event_id in stored["description"]


def test_ten_kilobytes_of_text_arrive(typed: Place) -> None:
    long = "é" * 5000
    rule = json.loads(json.dumps(RULE))
    rule["rules"]["typed"]["run"]["params"]["s"] = long
    typed.rules(json.dumps(rule))
    with typed.opened() as app:
        decide(app, drop(app, "a.csv"))
        work(app, lambda: runs(app) and submitted(app))
        stored = typed.stub.http.get(f"/apis/v2beta1/runs/{runs(app)[0].backend_id}").json()
    assert stored["runtime_config"]["parameters"]["s"] == long


@pytest.mark.parametrize(
    ("key", "size", "why"),
    [
        ("{{workflow.name}}.csv", 1, "{{"),
        ("{{=1+1}}", 1, "{{"),
        ("a{{inputs.parameters.x}}", 1, "{{"),
        ("emoji \U0001f600.csv", 1, "4-byte"),
        ("a.csv", 2**53 + 2, "2^53"),
    ],
)
def test_what_the_server_would_let_slip_runs_nothing_and_says_why(typed: Place, key: str, size: int, why: str) -> None:
    with typed.opened() as app:
        decide(app, drop(app, key, size=size))
        (decision,) = app.ledger.decisions.list(Query())
        assert decision.reason == Reason.BAD_PARAMETER
        assert why in decision.detail
        assert runs(app) == []
    assert typed.stub.counts()["executed"] == 0


def test_a_run_is_followed_to_its_end_with_what_it_ran_in(typed: Place) -> None:
    with typed.opened() as app:
        decide(app, drop(app, "a.csv"))
        work(app, lambda: runs(app) and runs(app)[0].recorded_at)
        (run,) = runs(app)
        assert run.state is State.SUCCEEDED
        images = {one.source for one in app.ledger.lineage.into(f"run:{run.run_key}") if one.relation == "ran in"}
        assert images == {"image:registry.example/a"}
        assert app.link(run) == f"{typed.stub.url}/#/runs/details/{run.backend_id}"
