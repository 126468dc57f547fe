"""The stub KFP server answers as the real one was recorded to, and does wrong what it is asked to do wrong."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import yaml
from kfpserver import RUNS, SPEC, Stub, kfp_stub, where
from kfpstub.replay import Replay, recorded
from kfpstub.routes import endpoint

# How many runs and pipelines the real server held before.
FILES = {"kfp-2.17.0.jsonl": (37, 0), "kfp-2.17.0-more.jsonl": (56, 3)}
# Endpoints that the stub does not serve. A recording that is neither served nor named here fails the first test.
LEFT_OUT = {
    ("kfp-2.17.0.jsonl", 5): "a version from a URL: the service uploads packages, and the server refused it too",
}
MULTI_USER = "multi-user server: "
# What the recorder sent in headers stands in its notes only.
HEADERS = {
    "multi-user server: unknown user": {"kubeflow-userid": "nobody@x"},
    "multi-user server: bad bearer token": {"authorization": "Bearer bad"},
}


def test_every_recording_is_replayed_or_left_out_by_name() -> None:
    unserved = {
        (one.file, one.line)
        for file in FILES
        for one in recorded(file)
        if endpoint(one.said["method"], one.said["path"])[0].endswith("unknown")
    }
    assert unserved == set(LEFT_OUT)


@pytest.mark.parametrize("file", FILES)
def test_the_stub_answers_as_the_real_server_did(file: str, tmp_path: Path) -> None:
    (tmp_path / "multi").mkdir()
    with kfp_stub(tmp_path) as single, kfp_stub(tmp_path / "multi", "--multi-user", "--namespace", "kubeflow") as multi:
        replays = {False: Replay(single.http), True: Replay(multi.http)}
        timed = next(one for one in recorded(file) if "created_at" in one.said["response"])
        replays[False].begun(timed, *FILES[file])
        differing = []
        for one in recorded(file):
            if (one.file, one.line) not in LEFT_OUT:
                replay = replays[one.said["note"].startswith(MULTI_USER)]
                differing += replay.differences(one, HEADERS.get(one.said["note"], {}))
    assert differing == []


KEY = "abcdefgh234567ij"
NO_ANSWER, TOO_LATE = "RemoteProtocolError", "ReadTimeout"


@pytest.fixture(scope="module")
def kfp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """One for the tests below; the next fixture empties it."""
    with kfp_stub(tmp_path_factory.mktemp("kfp")) as stub:
        yield stub


@pytest.fixture
def stub(kfp: Stub) -> Stub:
    kfp.reset()
    kfp.configure(pending=1, running=2, canceling=1, qps=0, burst=10, over="wait")
    kfp.freeze(1_800_000_000)
    return kfp


def made(stub: Stub, name: str = f"a run {KEY}", **more: Any) -> str:
    return str(stub.create(name, **more).json()["run_id"])


def names(runs: list[Any]) -> list[str]:
    return [run["display_name"] for run in runs]


def attempted(stub: Stub, patience: float) -> int | str:
    """The status, or how the connection failed."""
    with httpx.Client(base_url=stub.url, timeout=patience) as client:
        try:
            return client.post(RUNS, json={"display_name": f"x {KEY}", "pipeline_spec": SPEC}).status_code
        except httpx.HTTPError as error:
            return type(error).__name__


def counted(stub: Stub, executed: int) -> Any:
    """The counts, as soon as so many Workflows were made: a request whose client has gone takes its time."""
    deadline = time.monotonic() + 5
    while stub.counts()["executed"] < executed and time.monotonic() < deadline:
        time.sleep(0.02)
    return stub.counts()


@pytest.mark.parametrize(
    ("mode", "settings", "seen", "runs", "executed"),
    [
        ("close", {}, NO_ANSWER, 0, 0),
        ("drop_answer", {}, NO_ANSWER, 1, 1),
        ("cut_answer", {}, NO_ANSWER, 1, 1),
        ("hang_before", {"seconds": 0.4}, TOO_LATE, 1, 1),
        ("hang_after", {"seconds": 0.4}, TOO_LATE, 1, 1),
        ("status", {"status": 503, "answer": "upstream"}, 503, 0, 0),
        ("status", {"status": 500, "create": True}, 500, 1, 1),
        ("throttle", {"seconds": 7}, 429, 0, 0),
        ("unauthorized", {"token": "new", "times": 1}, 401, 0, 0),
        ("login_page", {}, 200, 0, 0),
        ("redirect", {}, 302, 0, 0),
        ("twice", {}, 200, 2, 2),
        ("gone", {}, 200, 0, 1),
    ],
)
def test_a_creation_meets_the_fault_once(
    stub: Stub, mode: str, settings: dict[str, Any], seen: int | str, runs: int, executed: int
) -> None:
    stub.fault(mode, method="POST", path="/runs$", body=KEY, **settings)
    assert attempted(stub, 0.2 if seen == TOO_LATE else 10) == seen
    counts = counted(stub, executed)
    assert (counts["runs"], counts["executed"], counts["executed_keys"].get(KEY, 0)) == (runs, executed, executed)
    assert attempted(stub, 10) == 200
    assert counted(stub, executed + 1)["requests"][f"POST {RUNS}"]["total"] == 2


@pytest.mark.parametrize(
    ("mode", "settings", "found"),
    [
        ("stale_list", {"seconds": 5}, ["old"]),
        ("partial_list", {"every": 2}, ["old"]),
        ("ignore_filter", {}, ["old", "new", "other"]),
        ("page_clamp", {"size": 1}, ["old"]),
    ],
)
def test_a_list_meets_the_fault_once(stub: Stub, mode: str, settings: dict[str, Any], found: list[str]) -> None:
    made(stub, "old")
    stub.advance(10)
    made(stub, "new")
    stub.advance(1)
    made(stub, "other")
    wanted = where("name", "IN", string_values={"values": ["old", "new"]})
    stub.fault(mode, method="GET", path="/runs$", **settings)
    assert names(stub.listed(wanted)) == found
    assert names(stub.listed(wanted)) == ["old", "new"]


def test_a_fault_skips_what_it_is_told_to_skip_and_the_401s_end_with_the_new_token(stub: Stub) -> None:
    stub.fault("unauthorized", path="/runs", token="new", after=1)
    good = {"authorization": "Bearer new"}
    statuses = [stub.http.get(RUNS, headers=headers).status_code for headers in ({}, {}, {}, good)]
    assert statuses == [200, 401, 401, 200]
    assert stub.counts()["unauthorized"] == 2


def test_a_fault_that_nobody_knows_is_refused(stub: Stub) -> None:
    assert stub.http.post("/_stub/faults", json={"mode": "drop_answers"}).status_code == 400


@pytest.mark.parametrize("over", ["429", "500"])
def test_creations_beyond_the_limit_are_refused(stub: Stub, over: str) -> None:
    stub.configure(qps=0.001, burst=2, over=over)
    assert [stub.create("x").status_code for _ in range(3)] == [200, 200, int(over)]
    assert stub.counts()["executed"] == 2


def test_creations_beyond_the_limit_wait_as_the_kubernetes_client_does(stub: Stub) -> None:
    stub.configure(qps=20, burst=1)
    began = time.monotonic()
    assert [stub.create("x").status_code for _ in range(4)] == [200] * 4
    assert time.monotonic() - began >= 0.14


def test_filters_are_unescaped_once_more(stub: Stub) -> None:
    odd = ["a+b", "a%25b", "a%b", "a b"]
    for name in odd:
        made(stub, name)
    plain = {name: where("name", string_value=name) for name in odd}
    assert names(stub.listed(plain["a+b"])) == ["a b"]
    assert names(stub.listed(plain["a%25b"])) == ["a%b"]
    assert stub.http.get(RUNS, params={"filter": plain["a%b"]}).status_code == 400
    assert [names(stub.listed(quote(plain[name]))) for name in odd] == [[name] for name in odd]


def test_creations_from_four_threads_are_all_counted(stub: Stub) -> None:
    def some(_: int) -> list[str]:
        with httpx.Client(base_url=stub.url) as client:
            body = {"display_name": f"x {KEY}", "pipeline_spec": SPEC}
            return [client.post(RUNS, json=body).json()["run_id"] for _ in range(25)]

    with ThreadPoolExecutor(4) as pool:
        ids = [run_id for found in pool.map(some, range(4)) for run_id in found]
    counts = stub.counts()
    assert len(set(ids)) == 100
    assert (counts["creates"], counts["keys"], counts["runs"], counts["executed"]) == (
        {f"x {KEY}": 100},
        {KEY: 100},
        100,
        100,
    )


@pytest.mark.parametrize("body", [{"name": f"😀 {KEY}"}, {"name": "x" * 256}, {"run_id": "taken"}])
def test_a_500_may_leave_a_workflow_behind_that_no_list_shows(stub: Stub, body: dict[str, str]) -> None:
    first = made(stub)
    body = {name: first if value == "taken" else value for name, value in body.items()}
    assert stub.create(**{"name": "x"} | body).status_code == 500
    assert [run["run_id"] for run in stub.listed()] == [first]
    assert (stub.counts()["executed"], sum(stub.counts()["hidden"].values())) == (2, 1)


def test_a_run_fails_where_and_why_the_script_says_and_succeeds_when_retried(stub: Stub) -> None:
    stub.script("a run", outcome="fail", task="write", message="main: Error (exit code 7)")
    run = made(stub)
    seen = [(stub.state(run), stub.advance(1.5))[0] for _ in range(4)]
    assert seen == ["PENDING", "RUNNING", "FAILED", "FAILED"]
    tasks = stub.http.get(f"{RUNS}/{run}").json()["run_details"]["task_details"]
    assert sorted(task["display_name"] for task in tasks if task.get("state") == "FAILED")[:2] == ["executor", "root"]
    manifest = stub.http.get(f"/apis/v1beta1/runs/{run}").json()["pipeline_runtime"]["workflow_manifest"]
    nodes = json.loads(manifest)["status"]["nodes"].values()
    assert [one["message"] for one in nodes if one["phase"] == "Failed" and "message" in one] == [
        "main: Error (exit code 7)"
    ]
    done = [stub.http.post(f"{RUNS}/{run}:{verb}").status_code for verb in ("archive", "retry", "unarchive", "retry")]
    assert done == [200, 409, 200, 200]
    assert stub.state(run) == "RUNNING"
    stub.advance(2)
    assert stub.state(run) == "SUCCEEDED"


def test_runs_are_found_by_the_state_that_they_are_in_now_and_sorted_by_their_end(stub: Stub) -> None:
    for name, script in {
        "slow": {"running": 5}, "quick": {"running": 1}, "stuck": {"outcome": "hang"}, "lost": {"outcome": "nostate"},
        "open": {"outcome": "run"},
    }.items():  # fmt: skip
        stub.script(name, **script)
        made(stub, name)
    stub.advance(10)
    over = where("state", "IN", string_values={"values": ["SUCCEEDED", "FAILED"]})
    ended = stub.listed(over, sort_by="finished_at desc")
    assert names(ended) == ["slow", "quick"]
    assert names(stub.listed(where("state", string_value="PENDING"))) == ["stuck"]
    assert [run["display_name"] for run in stub.listed() if "state" not in run] == ["lost"]
    stub.script("stuck", outcome="fail", pending=0, running=0, existing=True)
    assert names(stub.listed(where("state", string_value="failed"))) == ["stuck"]


def test_a_terminated_run_is_canceling_and_then_failed_never_canceled(stub: Stub) -> None:
    stub.script(outcome="run")
    run = made(stub)
    stub.advance(2)
    assert stub.http.post(f"{RUNS}/{run}:terminate").status_code == 200
    assert stub.state(run) == "CANCELING"
    stub.advance(1)
    assert stub.state(run) == "FAILED"
    assert stub.http.post(f"{RUNS}/{run}:terminate").status_code == 400


def test_ten_thousand_runs_are_listed_once_each(stub: Stub) -> None:
    ids = stub.many_runs(10_000)
    found: list[str] = []
    token = ""
    while token or not found:
        query = {"page_size": 1000, "page_token": token, "sort_by": "created_at desc"}
        page = stub.http.get(RUNS, params=query).json()
        assert len(page["runs"]) == 200
        found += [run["run_id"] for run in page["runs"]]
        token = page.get("next_page_token", "")
    assert sorted(found) == sorted(ids)


def test_platform_settings_come_back_beside_the_pipeline(stub: Stub) -> None:
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {}}}}
    made_id = stub.upload("upload", yaml.safe_dump(SPEC), name="p")["pipeline_id"]
    version = stub.upload("upload_version", yaml.safe_dump_all([SPEC, platform]), name="v2", pipelineid=made_id)
    assert version["pipeline_spec"] == {"pipeline_spec": SPEC, "platform_spec": platform}
    reference = {"pipeline_id": made_id, "pipeline_version_id": version["pipeline_version_id"]}
    body = {"display_name": "x", "pipeline_version_reference": reference}
    assert stub.http.post(RUNS, json=body).json()["pipeline_version_reference"] == reference


def test_a_killed_server_comes_back_with_its_runs(tmp_path: Path) -> None:
    with kfp_stub(tmp_path) as stub:
        run = made(stub)
        stub.kill()
        stub.restart()
        assert [one["run_id"] for one in stub.listed()] == [run]
        assert stub.counts()["keys"] == {KEY: 1}


def test_a_multi_user_server_wants_a_token_a_namespace_and_an_experiment(tmp_path: Path) -> None:
    with kfp_stub(tmp_path, "--multi-user", "--token", "t", "--namespace", "team") as stub:
        good = {"authorization": "Bearer t"}
        body = {"display_name": "e", "namespace": "team"}
        experiment = stub.http.post("/apis/v2beta1/experiments", json=body, headers=good).json()["experiment_id"]
        run = {"display_name": "x", "pipeline_spec": SPEC, "experiment_id": experiment}
        made_by = [stub.http.post(RUNS, json=run, headers=one).status_code for one in ({}, good)]
        seen = [
            stub.http.get(RUNS, params={"namespace": namespace} if namespace else {}, headers=headers).status_code
            for namespace, headers in (("team", good), ("other", good), ("", good), ("team", {}))
        ]
    assert (made_by, seen) == ([401, 200], [200, 403, 400, 401])
