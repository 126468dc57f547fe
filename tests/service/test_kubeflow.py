"""The KFP adapter against the stub: what is sent, found and uploaded, and what may come of it."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from kfpserver import Stub, kfp_stub

from service.errors import Permanent, Temporary
from service.kubeflow import KubeflowBackend
from service.packages import compiled
from service.ports import Job, Package
from service.settings import BackendSettings

RECORDINGS = Path(__file__).parents[1] / "recordings"
KINDS = {"s": "STRING", "i": "NUMBER_INTEGER", "f": "NUMBER_DOUBLE", "b": "BOOLEAN", "l": "LIST", "d": "STRUCT"}


def package(image: str = "python:3.11", **inputs: str) -> bytes:
    """A pipeline of two tasks, one of them in a sub-pipeline; every input is optional."""
    declared = {name: {"parameterType": kind, "isOptional": True} for name, kind in (inputs or KINDS).items()}
    step = {
        "cachingOptions": {"enableCache": True},
        "componentRef": {"name": "comp-step"},
        "taskInfo": {"name": "step"},
    }
    inner = {"componentRef": {"name": "comp-inner"}, "taskInfo": {"name": "inner"}, "cachingOptions": {}}
    spec = {
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
        "root": {"dag": {"tasks": {"step": step, "inner": inner}}, "inputDefinitions": {"parameters": declared}},
        "components": {
            "comp-step": {"executorLabel": "exec-step"},
            "comp-inner": {"dag": {"tasks": {"deep": step | {"taskInfo": {"name": "deep"}}}}},
        },
        "deploymentSpec": {"executors": {"exec-step": {"container": {"image": image, "command": ["true"]}}}},
    }
    return json.dumps(spec, indent=1).encode() + b"\n"


IMPORT = (
    "import sys; from service.kubeflow import KubeflowBackend as K; from service.settings import BackendSettings as B"
)
PACKAGE = package()
PLATFORM = PACKAGE + b"---\n" + json.dumps({"platforms": {"kubernetes": {"deploymentSpec": {}}}}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("kfp")) as one:
        yield one


@pytest.fixture
def stub(server: Stub) -> Iterator[Stub]:
    yield server
    server.reset()


def made(stub: Stub, **settings: Any) -> KubeflowBackend:
    return KubeflowBackend("prod", BackendSettings(endpoint=stub.url, **{"settle": 60.0, "timeout": 5.0} | settings))


@pytest.fixture
def backend(stub: Stub) -> KubeflowBackend:
    one = made(stub)
    one.push("income", "v1", PACKAGE)
    return one


def job(backend: KubeflowBackend, reference: str = "income@v1", **changes: Any) -> Job:
    key = "".join(random.choices("abcdefghijklmnopqrstuvwxyz234567", k=16))
    return Job(
        **{
            "run_key": key,
            "display_name": f"train · a.csv · {key}",
            "description": "why",
            "pipeline": backend.pipeline(reference),
            "params": {},
            "experiment": "nightly",
            "time_limit": 60.0,
        }
        | changes
    )


def sent(stub: Stub, run_id: str) -> Any:
    return httpx.get(f"{stub.url}/apis/v2beta1/runs/{run_id}").json()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Permanent) as caught:
        call()
    return caught.value.detail


def test_making_one_costs_neither_an_import_nor_a_connection() -> None:
    code = f"{IMPORT}; K('k', B(endpoint='http://127.0.0.1:9', settle=60)); print('kfp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_client_reads_and_writes_nothing_of_the_users(stub: Stub, tmp_path: Path) -> None:
    context = tmp_path / ".config/kfp/context.json"
    context.parent.mkdir(parents=True)
    context.write_text('{"namespace": "mine", "client_authentication_cookie": "session=mine"}')
    code = f"{IMPORT}; print(K('k', B(endpoint=sys.argv[1], settle=60)).versions())"
    env = {**os.environ, "HOME": str(tmp_path), "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID": "x", "KF_PIPELINES_ENDPOINT": "y"}
    argv = [sys.executable, "-W", "error", "-c", code, stub.url]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=Path.cwd(), check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert "mine" in context.read_text()
    assert [one.name for one in tmp_path.iterdir()] == [".config"]


def test_a_run_is_sent_whole(stub: Stub, backend: KubeflowBackend) -> None:
    one = job(backend, service_account="trainer", pipeline_root="s3://b/root", description="a\nb é")
    run = sent(stub, backend.create(one))
    assert (run["display_name"], run["description"]) == (one.display_name, "a\nb é")
    assert (run["service_account"], run["runtime_config"]["pipeline_root"]) == ("trainer", "s3://b/root")
    assert set(run["pipeline_version_reference"]) == {"pipeline_id", "pipeline_version_id"}
    experiment = httpx.get(f"{stub.url}/apis/v2beta1/experiments/{run['experiment_id']}").json()
    assert experiment["display_name"] == "nightly"
    assert backend.find(one.run_key) == [run["run_id"]]


VALUES = {
    "text": {"s": "x"},
    "empty": {"s": "", "l": [], "d": {}},
    "unicode": {"s": "Größe ✓ 日本 \" ' \\ \n\t %25 +"},
    "10 kB": {"s": "x" * 10_000},
    "whole numbers": {"i": -3, "f": 3},
    "doubles": {"f": 2.5e-7},
    "booleans": {"b": False},
    "nested": {"l": [1, "x", None, {"y": [2.5]}], "d": {"a": {"b": [1, None]}, "n": None}},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_every_type_arrive_as_they_are(stub: Stub, backend: KubeflowBackend, name: str) -> None:
    run = sent(stub, backend.create(job(backend, params=VALUES[name])))
    assert run["runtime_config"]["parameters"] == VALUES[name]


def test_whole_numbers_are_sent_as_such(stub: Stub, backend: KubeflowBackend) -> None:
    """The server would take 1.5 for an int: so the type on the wire is ours to keep."""
    stub.fault("status", path="/runs$", body='"i": 3, "f": 3.0', method="POST", status=418)
    with pytest.raises(Permanent, match="418"):
        backend.create(job(backend, params={"i": 3, "f": 3.0}))


BAD = {
    "a value of another type": ({"params": {"i": 1.5}}, "whole number"),
    "an unknown parameter": ({"params": {"nope": 1}}, "no input `nope`"),
    "a placeholder": ({"params": {"s": "{{workflow.name}}"}}, "would evaluate"),
    "an emoji in a value": ({"params": {"d": {"a": ["\U0001f600"]}}}, "4-byte"),
    "an emoji in the description": ({"description": "\U0001f600"}, "the description holds"),
    "an emoji in the name": ({"display_name": "\U0001f600 {key}"}, "the name holds"),
    "half a character": ({"experiment": "a\ud800"}, "the experiment holds"),
    "a name that is too long": ({"display_name": "x" * 250 + " {key}"}, "267 characters"),
    "no name": ({"display_name": ""}, "run key"),
    "a name without the key": ({"display_name": "something else"}, "run key"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_server_would_choke_on_is_not_sent(stub: Stub, backend: KubeflowBackend, name: str) -> None:
    changes, told = BAD[name]
    one = replace(job(backend), **changes)  # type: ignore[arg-type]  # a table of keyword arguments
    one = replace(one, display_name=one.display_name.replace("{key}", one.run_key))
    assert told in refused(lambda: backend.create(one))
    assert stub.counts()["executed"] == 0


def test_a_parameter_that_must_be_given_is_missed_before_it_is_sent(stub: Stub, backend: KubeflowBackend) -> None:
    one = job(backend)
    needs = {name: replace(given, optional=False) for name, given in one.pipeline.inputs.items()}
    one = replace(one, pipeline=replace(one.pipeline, inputs=needs))
    assert "the parameter s has no value" in refused(lambda: backend.create(one))


def test_a_new_experiment_is_made_once_by_many(stub: Stub, backend: KubeflowBackend) -> None:
    stub.fault("hang_after", path="/experiments$", method="GET", seconds=0.3, times=8)  # all see that it is absent
    made_runs: list[str] = []
    jobs = [job(backend, experiment="new é+%") for _ in range(8)]
    threads = [threading.Thread(target=lambda one=one: made_runs.append(made(stub).create(one))) for one in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({sent(stub, run)["experiment_id"] for run in made_runs}) == 1
    assert len(made_runs) == 8


def test_an_experiment_or_version_that_was_deleted_meanwhile_is_looked_up_again(
    stub: Stub, backend: KubeflowBackend
) -> None:
    first = sent(stub, backend.create(job(backend)))
    http = httpx.Client(base_url=f"{stub.url}/apis/v2beta1")
    http.delete(f"/experiments/{first['experiment_id']}")
    second = sent(stub, backend.create(job(backend)))
    assert second["experiment_id"] != first["experiment_id"]
    ids = second["pipeline_version_reference"]
    http.delete(f"/pipelines/{ids['pipeline_id']}/versions/{ids['pipeline_version_id']}")
    made(stub).push("income", "v1", PACKAGE)
    third = sent(stub, backend.create(job(backend)))
    http.close()
    assert third["pipeline_version_reference"] != ids
    assert stub.counts()["executed"] == 3


def test_a_version_with_other_content_than_was_decided_on_makes_no_run(stub: Stub, backend: KubeflowBackend) -> None:
    one = job(backend)
    one = replace(one, pipeline=replace(one.pipeline, digest="other"))
    assert "other content" in refused(lambda: backend.create(one))


def test_an_answer_that_is_lost_leaves_a_run_that_is_found(stub: Stub, backend: KubeflowBackend) -> None:
    for mode in ("drop_answer", "cut_answer", "hang_after"):
        one = job(backend)
        stub.fault(mode, path="/runs$", method="POST", seconds=3)
        slow = made(stub, timeout=1.0)
        slow.pipeline("income@v1")
        with pytest.raises(Temporary) as caught:
            slow.create(one)
        assert not caught.value.nothing_happened, mode
        assert len(backend.find(one.run_key)) == 1, mode


def test_what_fails_before_the_run_is_sent_has_had_no_effect(stub: Stub, backend: KubeflowBackend) -> None:
    for path in ("/experiments$", "/pipelines$", "/upload_version$"):
        content = package(path)
        one = packaged(backend, content, upload=True, version=path)
        stub.fault("drop_answer", path=path, times=2)
        with pytest.raises(Temporary) as caught:
            made(stub).create(one)
        assert caught.value.nothing_happened, path
        stub.heal()
    assert stub.counts()["executed"] == 0


def test_a_run_is_not_sent_when_looking_things_up_took_too_long(stub: Stub, backend: KubeflowBackend) -> None:
    """Another process may have looked for it by then."""
    times = iter([0.0, 100.0])
    late = KubeflowBackend("prod", BackendSettings(endpoint=stub.url, settle=60.0), now=lambda: next(times, 200.0))
    one = replace(job(backend), pipeline=backend.pipeline("income@v1"))
    with pytest.raises(Temporary, match="too long") as caught:
        late.create(one)
    assert caught.value.nothing_happened
    assert stub.counts()["executed"] == 0


def test_an_answer_without_an_id_is_unclear(stub: Stub, backend: KubeflowBackend) -> None:
    stub.fault("status", path="/runs$", method="POST", status=200, answer={}, create=True)
    with pytest.raises(Temporary, match="no run id") as caught:
        backend.create(job(backend))
    assert not caught.value.nothing_happened


def test_find_gives_all_runs_whose_last_word_is_the_key(stub: Stub, backend: KubeflowBackend) -> None:
    one = job(backend)
    ids = [backend.create(one)]
    stub.advance(2)
    ids.append(backend.create(one))
    httpx.post(f"{stub.url}/apis/v2beta1/runs/{ids[0]}:archive", json={})
    stub.many_runs(450, name=f"x{one.run_key}x")
    stub.many_runs(3, name=one.run_key)  # the key, and a word behind it
    assert backend.find(one.run_key) == ids
    assert backend.find("abcdefghijklmnop") == []


NAMES = ["plain", "a+b", "a b", "100%", "a%25b", "a\"b'c", "Größe ✓", "a/b\\c", "v1.0-x_y", "*?#&="]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_found_again(stub: Stub, name: str) -> None:
    one = made(stub)
    one.push(name, name, PACKAGE)
    found = one.pipeline(f"{name}@{name}")
    assert (found.name, found.version) == (name, name)
    key = "a" * 16
    run = one.create(job(one, f"{name}@{name}", experiment=name, run_key=key, display_name=f"{name} {key}"))
    assert one.find(key) == [run]


def test_a_local_file_and_the_servers_copy_have_one_digest(stub: Stub) -> None:
    one = made(stub)
    for version, content in (("bare", PACKAGE), ("platform", PLATFORM)):
        one.push("p", version, content)
        assert one.pipeline(f"p@{version}").digest == compiled(content, "").digest
        assert made(stub).push("p", version, content) is False
    assert compiled(PACKAGE, "").digest != compiled(PLATFORM, "").digest


def test_so_they_have_on_a_real_server() -> None:
    lines = (RECORDINGS / "kfp-2.17.0-more.jsonl").read_text(encoding="utf-8").splitlines()
    from service.kubeflowpipelines import documents_of
    from service.packages import digest_of

    told = [json.loads(line) for line in lines]
    upload = next(one for one in told if one["note"] == "SDK upload_pipeline_version success")
    text = upload["request"]["multipart"][0]["text"]
    assert digest_of(documents_of(upload["response"]["pipeline_spec"])) == compiled(text.encode(), "").digest


def test_inputs_are_read_with_their_defaults(stub: Stub) -> None:
    spec = json.loads(package(i="NUMBER_INTEGER", s="STRING"))
    spec["root"]["inputDefinitions"]["parameters"]["i"]["defaultValue"] = 3.0
    del spec["root"]["inputDefinitions"]["parameters"]["s"]["isOptional"]
    one = made(stub)
    one.push("p", "v1", json.dumps(spec).encode())
    found = one.pipeline("p@v1").inputs
    assert (found["i"].default, type(found["i"].default), found["i"].optional) == (3, int, True)
    assert not found["s"].optional


def test_latest_is_the_newest_and_remembered_for_a_moment_only(stub: Stub, backend: KubeflowBackend) -> None:
    now = [0.0]
    one = KubeflowBackend("prod", BackendSettings(endpoint=stub.url, settle=60.0), now=lambda: now[0])
    assert one.pipeline("income@latest").version == "v1"
    stub.advance(2)
    backend.push("income", "v2", package("other"))
    assert one.pipeline("income@latest").version == "v1"
    now[0] = 2.1
    assert one.pipeline("income@latest").version == "v2"
    before = stub.counts()["requests"]
    assert one.pipeline("income@latest").reference == "income@latest"
    assert stub.counts()["requests"] == before


def test_what_is_not_there_is_told_with_what_is(stub: Stub, backend: KubeflowBackend) -> None:
    stub.advance(2)
    backend.push("income", "v3", package("three"))
    assert refused(lambda: backend.pipeline("income@v2")) == "there is no income@v2; there is v3, v1"
    assert refused(lambda: backend.pipeline("Income@v1")) == "there is no pipeline Income; there is income"
    assert "name@version" in refused(lambda: backend.pipeline("income"))


def test_a_pipeline_of_kfp_1_is_called_that(stub: Stub, backend: KubeflowBackend) -> None:
    argo = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {"templates": []}}
    version = {"pipeline_version_id": "x", "display_name": "old", "pipeline_spec": argo}
    stub.fault("status", path="/versions$", method="GET", status=200, answer={"pipeline_versions": [version]})
    assert "KFP v1" in refused(lambda: backend.pipeline("income@old"))
    assert "KFP v1" in refused(lambda: backend.push("p", "v1", json.dumps(argo).encode()))


def test_push_stores_a_version_once_and_no_other(stub: Stub) -> None:
    one = made(stub)
    assert one.push("p", "v1", PACKAGE) is True
    assert one.push("p", "v1", PACKAGE) is False
    assert "give changed content a new version" in refused(lambda: one.push("p", "v1", package("changed")))
    assert [(found.pipeline, found.version) for found in one.versions("p")] == [("p", "v1")]


def test_push_by_many_at_once_stores_one(stub: Stub) -> None:
    stub.fault("hang_after", path="/pipelines$", method="GET", seconds=0.3, times=12)
    done: list[bool] = []
    threads = [threading.Thread(target=lambda: done.append(made(stub).push("p", "v1", PACKAGE))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 5 + [True]
    assert len(made(stub).versions()) == 1


def test_versions_come_by_name_and_then_the_newest_first(stub: Stub) -> None:
    one = made(stub)
    for name, version in (("b", "v1"), ("a", "v1"), ("a", "v2")):
        one.push(name, version, PACKAGE)
        stub.advance(2)
    assert [(found.pipeline, found.version) for found in one.versions()] == [("a", "v2"), ("a", "v1"), ("b", "v1")]
    assert {found.digest for found in one.versions()} == {compiled(PACKAGE, "").digest}
    assert all(found.id and found.created_at for found in one.versions("a"))


def packaged(backend: KubeflowBackend, content: bytes, *, upload: bool, version: str = "abc") -> Job:
    plain = job(backend)
    pipeline = replace(plain.pipeline, name="p", version=version, digest=compiled(content, "").digest)
    return replace(plain, pipeline=pipeline, package=Package(content=content, upload=upload))


def test_a_package_is_sent_along_or_uploaded(stub: Stub, backend: KubeflowBackend) -> None:
    inline = sent(stub, backend.create(packaged(backend, PACKAGE, upload=False)))
    assert inline["pipeline_spec"]["pipelineInfo"] == {"name": "p"}
    uploaded = sent(stub, backend.create(packaged(backend, PACKAGE, upload=True)))
    assert uploaded["pipeline_version_reference"]["pipeline_version_id"] == backend.versions("p")[0].id


@pytest.mark.parametrize("how", ["inline", "by name"])
@pytest.mark.parametrize("caching", [True, False])
def test_caching_is_set_on_every_task(stub: Stub, backend: KubeflowBackend, how: str, *, caching: bool) -> None:
    one = job(backend, caching=caching) if how == "by name" else packaged(backend, PLATFORM, upload=False)
    run = sent(stub, backend.create(replace(one, caching=caching)))
    spec = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
    tasks = [*spec["root"]["dag"]["tasks"].values(), *spec["components"]["comp-inner"]["dag"]["tasks"].values()]
    assert [task["cachingOptions"]["enableCache"] for task in tasks] == [caching] * 3


def test_a_run_is_ended_and_taken_up_again(stub: Stub, backend: KubeflowBackend) -> None:
    stub.script(outcome="run", pending=0, canceling=0, retry="run")
    run = backend.create(job(backend))
    assert "cannot be retried" in refused(lambda: backend.retry(run))
    backend.cancel(run)
    backend.cancel(run)  # it has ended
    assert sent(stub, run)["state"] == "FAILED"
    backend.retry(run)
    assert sent(stub, run)["state"] == "RUNNING"
    backend.cancel("00000000-0000-4000-8000-000000000000")
    assert "not found" in refused(lambda: backend.retry("00000000-0000-4000-8000-000000000000"))


def test_the_log_tells_what_kfp_knows(stub: Stub, backend: KubeflowBackend) -> None:
    stub.script(outcome="fail", task="step", message="main: Error (exit code 7)", pending=0, running=0)
    run = backend.create(job(backend))
    told = backend.log(run)
    assert "task step: main: Error (exit code 7)" in told
    assert "FAILED" in told
    assert f"#/runs/details/{run}" in told


LINKS = [
    ({}, "http://kfp:8888/x/#/runs/details/1"),
    ({"ui": "https://ui.example/"}, "https://ui.example/#/runs/details/1"),
    (
        {"ui": "https://k.example/_/pipeline", "namespace": "team"},
        "https://k.example/_/pipeline/?ns=team#/runs/details/1",
    ),
    ({"ui": "https://k.example/_/pipeline"}, "https://k.example/_/pipeline/#/runs/details/1"),
    ({"namespace": "team"}, "http://kfp:8888/x/#/runs/details/1"),
]


@pytest.mark.parametrize(("settings", "link"), LINKS)
def test_a_run_has_a_page(settings: dict[str, str], link: str) -> None:
    given = BackendSettings.model_validate({"endpoint": "http://kfp:8888/x", "settle": 60} | settings)
    assert KubeflowBackend("prod", given).link("1") == link


def test_defaults_hold_where_a_run_says_nothing(stub: Stub, backend: KubeflowBackend) -> None:
    one = made(stub, experiment="ours", run_as="trainer", pipeline_root="s3://b", caching=False, rate=0)
    run = sent(stub, one.create(job(one, experiment="")))
    assert (run["service_account"], run["runtime_config"]["pipeline_root"]) == ("trainer", "s3://b")
    assert "pipeline_spec" in run
    assert (one.rate, one.defaults.experiment, one.has_room()) == (None, "ours", True)
