"""F17, F23, F26: a backend whose answers are lost, bodies that nobody understands, rule files that are broken."""

import time

import pytest
from faults.report import Account
from faults.stage import PACE, RULE, Stage, bound, until

pytestmark = [pytest.mark.faults, pytest.mark.quick]
POISON = {
    "deep": b"[" * 100_000,
    "nul": b'{"Records": [{"eventName": "s3:ObjectCreated:Put\\u0000"}]}',
    "surrogate": b'{"Records": [{"eventName": "\\ud800"}]}',
    "digits": b'{"Records": ' + b"9" * 5000 + b"}",
    "no json": b"\x00\xff",
}


@pytest.mark.parametrize("mode", ["drop_answer", "cut_answer", "hang_after"])
def test_F17_a_run_whose_answer_is_lost_is_adopted(stage: Stage, account: Account, mode: str) -> None:  # noqa: N802
    stage.stub.fault(mode, method="POST", path="/runs$", body=stage.home.name, seconds=PACE["lease"])
    stage.api()
    stage.deliver()
    account.recovered(stage.settled(1))
    assert max(account.seconds) <= bound(PACE["settle"])


@pytest.mark.parametrize("name", POISON)
def test_F23_what_nobody_understands_holds_up_nobody(stage: Stage, account: Account, name: str) -> None:  # noqa: N802
    stage.api()
    assert stage.post(POISON[name]) == 202
    assert stage.post(POISON[name]) == 200
    began = time.monotonic()
    assert stage.post(stage.body()) == 202
    assert time.monotonic() - began < 5  # a sender's time-out; alone it takes some milliseconds
    account.recovered(stage.settled(1))
    assert stage.verified()["events"]["quarantined"] == 1


@pytest.mark.parametrize("broken", ["rules: [", "apiVersion: kfp-triggers/v1\nrules: {score: {}}\n", ""])
def test_F26_a_broken_rule_file_leaves_the_old_set_in_force(  # noqa: N802
    stage: Stage, account: Account, broken: str
) -> None:
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    stage.write("rules/rules.yaml", broken)
    until(
        lambda: "rules" in api.log.read_text() and "problem" in api.log.read_text(), what="the broken file is told of"
    )
    stage.deliver()
    stage.settled(2)
    api.kill()
    stage.api()  # the last good set is recalled from the store
    stage.deliver()
    account.recovered(stage.settled(3))
    with stage.store() as store:
        assert len({store.decisions.of_event(run.event_id)[0].rule_set for run in stage.runs()}) == 1


def test_F26_a_run_keeps_the_rule_that_decided_it(stage: Stage, account: Account) -> None:  # noqa: N802
    stage.api("event.decided=kill")
    stage.post(stage.body())
    (before,) = until(stage.runs)
    stage.rules(RULE.replace("run: {pipeline", "run: {caching: false, pipeline"))
    stage.api()
    stage.deliver()
    account.recovered(stage.settled(2))
    with stage.store() as store:
        hashes = {run.run_key: store.decisions.of_event(run.event_id)[0].rule_hash for run in stage.runs()}
    assert len(set(hashes.values())) == 2
    assert before.run_key in hashes
