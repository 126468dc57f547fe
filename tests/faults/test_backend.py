"""F18 to F21 and F27: a backend that refuses, shows stale lists or loses runs; senders that repeat; an orderly end."""

import os
import signal
import threading
import time
from typing import Any

import pytest
from faults.report import Account
from faults.stage import PACE, Stage, bound, until

from service.lifecycle import State
from triggers.reason import Reason

pytestmark = pytest.mark.faults
quick = pytest.mark.quick
RUNS = {"method": "POST", "path": "/runs$"}


@quick
@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("status", {"status": 503}),
        ("throttle", {"seconds": 1}),
        ("unauthorized", {"token": "new", "times": 6}),
        ("close", {}),
        ("login_page", {}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_F18_a_server_that_refuses_is_asked_again_and_not_in_a_hurry(  # noqa: N802
    stage: Stage, account: Account, mode: str, more: dict[str, Any]
) -> None:
    stage.stub.fault(mode, **RUNS, **{"times": 4, **more})
    stage.api()
    before = asked(stage)
    stage.deliver()
    time.sleep(5)
    assert asked(stage) - before < 15  # in five seconds; a loop without a pause asks thousands of times
    stage.stub.heal()
    until(lambda: stage.runs()[0].state is State.READY or stage.runs()[0].backend_id, what="it is ready again, or sent")
    with stage.store() as store:
        store.queue.hurry("default", stage.runs()[0].created_at)  # a person has mended it, and does not wait a minute
    account.recovered(stage.settled(1, within=90))


def asked(stage: Stage) -> int:
    """How often the server was asked to make a run."""
    requests = stage.stub.counts()["requests"]
    return sum(one["total"] for name, one in requests.items() if name.startswith("POST") and name.endswith("/runs"))


@quick
def test_F18_what_is_refused_for_good_ends_with_the_reason(stage: Stage, account: Account) -> None:  # noqa: N802
    told = {"code": 3, "message": "Invalid input error: the parameter uri is too long"}
    stage.stub.fault("status", **RUNS, status=400, answer=told)
    stage.api()
    stage.deliver()
    account.recovered(stage.settled(1))
    (run,) = stage.runs()
    assert (run.state, run.backend_id) == (State.DEAD, "")
    assert "uri is too long" in run.error + run.detail


@pytest.mark.parametrize(
    "lists", [("stale_list", {"seconds": 1.5}), ("ignore_filter", {}), ("page_clamp", {"size": 2})]
)
def test_F19_a_list_that_cannot_be_trusted_sends_nothing_again(  # noqa: N802
    stage: Stage, account: Account, lists: tuple[str, dict[str, Any]]
) -> None:
    stage.stub.many_runs(300, name="somebody else's", outcome="SUCCEEDED")
    stage.stub.fault(lists[0], method="GET", path="/runs$", times=-1, **lists[1])
    stage.stub.fault("drop_answer", **RUNS, body=stage.home.name)
    stage.api()
    stage.deliver()
    account.recovered(stage.settled(1, within=60))
    assert account.seconds[-1] <= bound(2 * PACE["settle"])
    with stage.store() as store:
        assert Reason.ADOPTED in {move.reason for move in store.runs.transitions(stage.runs()[0].run_key)}


@quick
@pytest.mark.parametrize(("what", "ends"), [("deleted", State.GONE), ("terminated", State.CANCELLED)])
def test_F20_what_people_do_in_kfps_own_pages_is_seen(  # noqa: N802
    stage: Stage, account: Account, what: str, ends: State
) -> None:
    stage.stub.script(running=60)
    stage.api()
    stage.deliver()
    run = until(lambda: next((one for one in stage.runs() if one.state is State.RUNNING), None), what="it runs")
    address = f"/apis/v2beta1/runs/{run.backend_id}"
    made = stage.stub.http.delete(address) if what == "deleted" else stage.stub.http.post(f"{address}:terminate")
    assert made.status_code == 200
    account.recovered(stage.settled(1))
    (run,) = stage.runs()
    assert run.state in {ends, State.FAILED}


@quick
def test_F21_deliveries_doubled_reordered_and_at_once(stage: Stage, account: Account, chance: Any) -> None:  # noqa: N802
    stage.api()
    bodies = [stage.body() for _ in range(8)]
    told = chance.sample(bodies * 5, len(bodies) * 5)
    senders = [
        threading.Thread(target=lambda mine: [stage.deliver(one) for one in mine], args=(told[n::5],)) for n in range(5)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    account.recovered(stage.settled(len(bodies)))
    with stage.store() as store:
        assert store.account.gauges()["event"] == {"decided": len(bodies)}


@quick
def test_F27_an_orderly_end_under_load_loses_nothing(stage: Stage, account: Account) -> None:  # noqa: N802
    api = stage.api()
    answers: list[int] = []
    keys: list[str] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            key, answer = f"{stage.home.name}/{threading.get_ident()}-{time.monotonic_ns()}.csv", 0
            keys.append(key)
            body = stage.body(key)
            while answer not in {200, 202}:
                answer = stage.post(body)
                answers.append(answer)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(2):
        time.sleep(1)
        os.kill(api.pid, signal.SIGTERM)
        assert api.ended(within=20) in {0, -signal.SIGTERM}  # uvicorn ends in order, then as it was told to
        api = stage.api()
    time.sleep(0.5)
    over.set()
    for sender in senders:
        sender.join()
    assert set(answers) <= {0, 200, 202, 503}
    account.recovered(stage.settled(len(keys), within=90))
