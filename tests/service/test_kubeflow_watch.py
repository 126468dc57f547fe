"""Looking at many runs of a KFP server in few calls: what is seen, what it costs, and what a list may not say."""

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from kfpserver import Stub, kfp_stub

from service.errors import Permanent, Temporary
from service.kubeflow import KubeflowBackend
from service.kubeflowruns import explained, observed, state_of
from service.lifecycle import State
from service.ports import Job, Observed
from service.settings import BackendSettings

RECORDINGS = Path(__file__).parents[1] / "recordings"
KEY = "abcdefgh234567zz"
SPEC = {
    "pipelineInfo": {"name": "p"},
    "schemaVersion": "2.1.0",
    "root": {"dag": {"tasks": {"train": {"componentRef": {"name": "comp-train"}, "taskInfo": {"name": "train"}}}}},
    "components": {"comp-train": {"executorLabel": "exec-train"}},
    "deploymentSpec": {"executors": {"exec-train": {"container": {"image": "r/train@sha256:0", "command": ["true"]}}}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("kfp")) as one:
        yield one


@pytest.fixture
def stub(server: Stub) -> Iterator[Stub]:
    yield server
    server.reset()


class Watched:
    """A backend on a clock that moves two seconds with each look."""

    def __init__(self, stub: Stub, **settings: Any) -> None:
        self.stub = stub
        self.now = 0.0
        given = BackendSettings(**{"endpoint": stub.url, "settle": 60.0, "timeout": 5.0} | settings)
        self.backend = KubeflowBackend("prod", given, now=lambda: self.now)
        self.seen: dict[str, Observed] = {}
        self.others: dict[str, str] = {}

    def look(self, ids: list[str], times: int = 1) -> dict[str, Observed]:
        """What so many looks showed of them, each the last that was seen."""
        for _ in range(times):
            look = self.backend.observe(ids)
            self.seen |= look.seen
            self.others |= {one.backend_id: one.run_key for one in look.others}
            self.now += 2
        return self.seen

    def run(self, **script: Any) -> str:
        """A run of its own, gone through at once unless the script says otherwise."""
        name = f"r{self.now}-{len(self.seen)} {KEY}"
        self.stub.script(name, **{"pending": 0, "running": 0, "canceling": 0, "task": "train"} | script)
        self.backend.push("p", "v1", json.dumps(SPEC).encode())
        pipeline = self.backend.pipeline("p@v1")
        job = Job(
            run_key=KEY, display_name=name, description="", pipeline=pipeline, params={}, experiment="e", time_limit=9
        )
        return self.backend.create(job)


@pytest.fixture
def watched(stub: Stub) -> Watched:
    return Watched(stub)


def calls(stub: Stub) -> int:
    return sum(one["total"] for one in stub.counts()["requests"].values())


OUTCOMES = {
    "succeed": ({"outcome": "succeed"}, State.SUCCEEDED),
    "skip": ({"outcome": "skip"}, State.SUCCEEDED),
    "fail": ({"outcome": "fail"}, State.FAILED),
    "cancel": ({"outcome": "cancel"}, State.CANCELLED),
    "run": ({"outcome": "run"}, State.RUNNING),
    "pause": ({"outcome": "pause"}, State.RUNNING),
    "wait": ({"outcome": "hang"}, State.SUBMITTED),
    "lost by KFP": ({"outcome": "nostate"}, State.SUBMITTED),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_run_is_seen_where_it_is(watched: Watched, name: str) -> None:
    script, state = OUTCOMES[name]
    run = watched.run(**script)
    seen = watched.look([run], 3)[run]
    assert seen.state is state
    ended = state in {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    assert (seen.ended_at is not None) is ended
    assert (seen.started_at is not None) is (state is not State.SUBMITTED)


def test_an_end_is_seen_by_the_next_look(watched: Watched) -> None:
    run = watched.run(outcome="run")
    assert watched.look([run])[run].state is State.RUNNING
    watched.stub.script("", outcome="succeed", running=0, existing=True)
    assert watched.look([run])[run].state is State.SUCCEEDED


def test_a_failure_comes_with_its_reason_and_images(watched: Watched) -> None:
    run = watched.run(outcome="fail", message="main: Error (exit code 7)\n")
    seen = watched.look([run])[run]
    assert (seen.error, seen.failed_task) == ("task train: main: Error (exit code 7)", "train")
    assert seen.outputs == {"parameters": {}, "artifacts": {}, "images": ["r/train@sha256:0"]}


def test_a_failure_waits_for_its_reason_but_not_for_ever(watched: Watched) -> None:
    run = watched.run(outcome="fail")
    watched.stub.fault("close", path="v1beta1", times=-1)
    assert watched.look([run]) == {}
    assert watched.look([run], 8)[run].error == "task train: KFP gives no reason"


def test_a_failure_has_its_task_where_there_is_no_manifest(watched: Watched) -> None:
    run = watched.run(outcome="fail")
    watched.stub.fault("status", path="v1beta1", status=404, answer={"message": "no v1 here"})
    seen = watched.look([run])[run]
    assert (seen.error, seen.outputs["images"]) == ("task train: KFP gives no reason", ["r/train@sha256:0"])


def test_a_run_that_was_ended_is_cancelled_and_one_taken_up_again_runs(watched: Watched) -> None:
    run = watched.run(outcome="run", retry="fail")
    watched.backend.cancel(run)
    assert watched.look([run])[run].state is State.CANCELLED
    watched.stub.configure(running=60)
    watched.backend.retry(run)
    watched.look([run], 2)
    watched.stub.advance(120)
    assert watched.look([run], 3)[run].state is State.FAILED


def test_a_run_that_was_deleted_is_gone(watched: Watched) -> None:
    run = watched.run(outcome="run")
    assert watched.look([run])[run].state is State.RUNNING
    httpx.delete(f"{watched.stub.url}/apis/v2beta1/runs/{run}")
    assert watched.look([run], 3)[run].state is State.GONE


@pytest.mark.parametrize("bent", ["stale_list", "partial_list", "page_clamp", "ignore_filter"])
def test_a_list_that_is_old_or_cut_off_makes_nothing_gone(watched: Watched, bent: str) -> None:
    runs = watched.stub.many_runs(30)
    watched.stub.fault(bent, path="/runs$", times=-1, seconds=600, every=2, size=3)
    watched.look(runs, 40)
    assert {one.state for one in watched.seen.values()} == {State.RUNNING}
    assert set(watched.seen) == set(runs)


@pytest.mark.parametrize("body", [{"message": "Not Found"}, "<html>no route</html>", {"message": "Run x not found"}])
def test_another_ones_404_makes_nothing_gone(watched: Watched, body: Any) -> None:
    run = watched.run(outcome="run")
    watched.stub.fault("partial_list", path="/runs$", times=-1, every=1)
    watched.stub.fault("status", path=f"/runs/{run}", status=404, answer=body, times=-1)
    with pytest.raises(Temporary):
        watched.look([run], 4)
    assert watched.seen == {}


def test_one_run_that_cannot_be_asked_about_holds_up_no_other(watched: Watched) -> None:
    bad, *good = watched.stub.many_runs(8)
    watched.stub.fault("partial_list", path="/runs$", times=-1, every=1)
    watched.stub.fault("status", path=f"/runs/{bad}", status=500, times=-1)
    for _ in range(30):
        with suppress(Temporary):
            watched.look([bad, *good])
            continue
        watched.now += 2
    assert set(watched.seen) == set(good)


def test_a_server_that_is_away_is_an_error_and_then_seen_again(watched: Watched) -> None:
    run = watched.run(outcome="run")
    watched.stub.fault("close", times=4)
    with pytest.raises(Temporary):
        watched.look([run])
    watched.now += 2
    watched.stub.heal()
    assert watched.look([run])[run].state is State.RUNNING


def test_a_look_that_comes_too_soon_is_free(watched: Watched) -> None:
    run = watched.run(outcome="run")
    watched.look([run])
    watched.now -= 1
    before = calls(watched.stub)
    assert watched.backend.observe([run]).seen == {}
    assert calls(watched.stub) == before


def test_open_runs_that_nobody_asked_about_are_sighted_by_their_key(watched: Watched) -> None:
    lost, ended = watched.run(outcome="run"), watched.run(outcome="succeed")
    watched.stub.many_runs(2)
    watched.look([])
    assert watched.others == {lost: KEY, ended: KEY}
    watched.others.clear()
    watched.look([], 20)
    assert watched.others == {lost: KEY}, "an end is told once"
    assert ended not in watched.seen
    watched.look([lost], 3)
    assert watched.seen[lost].state is State.RUNNING


def test_ten_thousand_open_runs_cost_sixty_calls_a_minute(stub: Stub) -> None:
    watched = Watched(stub)
    runs = stub.many_runs(10_000)
    before = calls(stub)
    watched.look(runs, 30)
    assert calls(stub) - before <= 60
    watched.look(runs, 21)
    assert len(watched.seen) == 10_000
    assert calls(stub) - before <= 102


def test_few_runs_are_looked_at_with_each_look_and_none_seldom(stub: Stub) -> None:
    watched = Watched(stub)
    run = watched.run(outcome="run")
    before = calls(stub)
    watched.look([run], 30)
    assert 58 <= calls(stub) - before <= 60
    watched.look([], 60)
    assert calls(stub) - before <= 60 + 10


def test_many_failures_at_once_are_told_within_the_budget(stub: Stub) -> None:
    watched = Watched(stub)
    runs = stub.many_runs(40, outcome="fail", age=1000)
    before = calls(stub)
    watched.look(runs, 60)
    assert len(watched.seen) == 40
    assert {one.state for one in watched.seen.values()} == {State.FAILED}
    assert calls(stub) - before <= 120


def test_after_a_long_sleep_old_ends_are_found(stub: Stub) -> None:
    watched = Watched(stub)
    runs = stub.many_runs(900, outcome="succeed", age=1000)
    watched.look(runs, 6)
    assert len(watched.seen) == 900


def test_a_token_that_is_refused_begins_the_list_again(watched: Watched) -> None:
    runs = watched.stub.many_runs(300)
    watched.look(runs)
    watched.stub.fault("status", path="/runs$", status=400, answer={"message": "bad token"}, times=2)
    with pytest.raises(Permanent, match="bad token"):
        watched.look(runs)
    watched.now += 2
    watched.stub.heal()
    assert len(watched.look(runs, 4)) == 300


HISTORIES = [
    (["PENDING", "RUNNING", "FAILED"], State.FAILED),
    (["PENDING", "CANCELING", "FAILED"], State.CANCELLED),
    (["PENDING", "RUNNING", "CANCELING", "FAILED"], State.CANCELLED),
    (["PENDING", "RUNNING", "CANCELING", "FAILED", "RUNNING", "FAILED"], State.FAILED),
    (["PENDING", None, "FAILED"], State.FAILED),
    ([], State.FAILED),
]


@pytest.mark.parametrize(("history", "state"), HISTORIES)
def test_only_the_history_tells_an_end_that_was_asked_for(history: list[str | None], state: State) -> None:
    past = [{"update_time": "2026-11-21T07:28:27Z", **({"state": one} if one else {})} for one in history]
    assert state_of({"state": "FAILED", "state_history": [*past, None]}) is state


def test_recorded_runs_are_read() -> None:
    lines = (RECORDINGS / "kfp-2.17.0-more.jsonl").read_text(encoding="utf-8").splitlines()
    told = {one["note"]: one["response"] for one in map(json.loads, lines)}
    failed = observed(told["final GET of FAILED run"])
    assert (failed.state, failed.failed_task) == (State.FAILED, "step1")
    assert failed.started_at == datetime(2026, 11, 21, 7, 28, 19, tzinfo=UTC)
    assert failed.ended_at == datetime(2026, 11, 21, 7, 28, 25, tzinfo=UTC)
    assert observed(told["final GET of terminated run"]).state is State.CANCELLED
    assert observed(told["final GET of run terminated while PENDING"]).state is State.CANCELLED
    assert observed(told["final GET of retried run"]).state is State.SUCCEEDED
    again = observed(told["GET after retry of terminated run"])
    assert (again.state, again.ended_at) == (State.RUNNING, None)


def node(key: str, name: str, around: str = "", **more: Any) -> dict[str, Any]:
    return {"id": key, "displayName": name, "type": "Pod", "phase": "Succeeded", "boundaryID": around} | more


def workflow(*nodes: dict[str, Any], message: str = "") -> dict[str, Any]:
    return {"status": {"nodes": {one["id"]: one for one in nodes}, "message": message}}


BARE = Observed(state=State.FAILED, error="task step: KFP gives no reason", failed_task="step")
DAG = {"type": "DAG", "phase": "Failed"}
OOM = {"phase": "Failed", "message": "OOMKilled (exit code 137)", "finishedAt": "2026-11-21T07:28:25Z"}
LATER = {"phase": "Failed", "message": "stopped", "finishedAt": "2026-11-21T07:28:26Z"}
PACKED = base64.b64encode(zlib.compress(json.dumps({"a": node("a", "a-driver", **OOM)}).encode())).decode()
WORKFLOWS = {
    "an executor": (
        workflow(node("w", "p-x", **DAG), node("t", "train", "w", **DAG), node("e", "executor", "t", **OOM)),
        ("task train: OOMKilled (exit code 137)", "train"),
    ),
    "a retried executor": (
        workflow(node("t", "train", **DAG), node("r", "executor", "t", **DAG), node("e", "executor(1)", "t", **OOM)),
        ("task train: OOMKilled (exit code 137)", "train"),
    ),
    "the first of two": (
        workflow(node("a", "a-driver", **LATER), node("b", "b-driver", **OOM)),
        ("task b: OOMKilled (exit code 137)", "b"),
    ),
    "the root's driver": (workflow(node("d", "root-driver", **OOM)), ("task step: OOMKilled (exit code 137)", "step")),
    "no pod": (workflow(message="Max duration limit exceeded"), ("Max duration limit exceeded", "step")),
    "nothing": ({}, (BARE.error, "step")),
    "compressed": (
        {"status": {"compressedNodes": PACKED}},
        ("task a: OOMKilled (exit code 137)", "a"),
    ),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_reason_is_read_from_the_workflow(name: str) -> None:
    """As Argo writes it; https://argo-workflows.readthedocs.io/en/latest/fields/#nodestatus."""
    manifest, told = WORKFLOWS[name]
    assert explained(BARE, manifest) == told
