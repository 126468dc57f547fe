"""`kfp-triggers fire`: a person tries a rule, offline and on a service that runs: what is seen, and how it ends."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import ROOT, Shell

PIPELINES = """
from kfp import compiler, dsl
step = dsl.component(base_image="python:3.11", install_kfp_package=False)

@step
def shout(text: str) -> str:
    print(f"hello {text}")
    return text.upper()

@step
def refuse(text: str):
    raise ValueError(f"nobody is called {text}")

@dsl.pipeline(name="greet")
def greet(text: str, run_key: str = ""):
    shout(text=text)

@dsl.pipeline(name="break")
def break_it(text: str):
    refuse(text=text)

for one in (greet, break_it):
    compiler.Compiler().compile(one, f"{one.name}@v1.yaml")
"""
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  by-hand: {type: manual, token: {file: secrets/uploads}}
  uploads: {type: minio, token: {file: secrets/uploads}, buckets: [uploads]}
"""
RULES = """
apiVersion: kfp-triggers/v1
rules:
  greet-person:
    trigger: {source: by-hand, event: manual.fired}
    run: {pipeline: greet@v1, params: {text: "${event.by}"}}
  greet-object:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    require: [{expr: "event.size > 0", reason: it is empty}]
    run: {pipeline: greet@v1, params: {text: "${event.key}"}}
  break-it:
    trigger: {source: by-hand, event: manual.fired}
    run: {pipeline: break@v1, params: {text: nobody}}
"""
PACE = {"SWEEP": "0.2", "WATCH": "0.2", "TAKEOVER": "0.5", "LEASE": "5"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `init` leaves it, with two pipelines of its own and a store."""
    home = tmp_path_factory.mktemp("fire") / "home"
    shell, env = Shell(), {"KFP_TRIGGERS_HOME": str(home)}
    shell.process("init", str(home))
    (home / "sources.yaml").write_text(SOURCES)
    (home / "rules" / "example.yaml").write_text(RULES)
    (home / "packages" / "compiled.py").write_text(PIPELINES)  # kfp reads a component's source from its file
    subprocess.run([sys.executable, "compiled.py"], cwd=home / "packages", check=True, capture_output=True)
    shell.process("migrate", **env)
    shell.process("rules", "check", **env)
    return home


@pytest.fixture
def shell(made: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(made))
    return Shell()


@pytest.fixture(scope="module")
def service(made: Path) -> Iterator[str]:
    """`kfp-triggers api` without a broker, on this home; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "KFP_TRIGGERS_HOME": str(made), "KFP_TRIGGERS_API__PORT": str(port)}
    env |= {f"KFP_TRIGGERS_PACE__{name}": text for name, text in PACE.items()}
    url = f"http://127.0.0.1:{port}"
    with (
        (made / "api.log").open("w") as log,
        subprocess.Popen([sys.executable, "-m", "service", "api"], cwd=ROOT, env=env, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while not answers(url):
                assert process.poll() is None, (made / "api.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            assert process.wait(timeout=20) in {0, -15}
    assert "Traceback" not in (made / "api.log").read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def event(key: str = "incoming/a.csv", size: int = 12, **changes: Any) -> str:
    data = {"object": f"s3://uploads/{key}", "bucket": "uploads", "key": key, "dir": "incoming", "name": "a.csv"}
    data |= {"stem": "a", "ext": "csv", "size": size, "etag": "e", "version_id": "", "content_type": "", "metadata": {}}
    given = {"type": "object.created", "subject": f"s3://uploads/{key}", "time": "2026-11-21T07:00:00Z", "data": data}
    return json.dumps(given | changes)


def test_a_dry_run_says_what_would_be_passed_and_stores_nothing(shell: Shell) -> None:
    before = shell.json("events", "list")
    shown = shell.run("fire", "greet-person", "--dry-run").out
    assert re.search(r"outcome +run", shown)
    assert '"text": ' in shown
    found = shell.json("fire", "greet-person", "--dry-run")
    assert (found["outcome"], found["reason"]) == ("run", "matched")
    assert shell.json("events", "list") == before


def test_a_dry_run_on_an_event_of_ones_own(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(event("elsewhere/b.csv"))
    found = shell.json("fire", "greet-object", "--event", str(file), "--dry-run")
    assert found["params"]["text"] == "elsewhere/b.csv"
    file.write_text(event(size=0))
    found = shell.json("fire", "greet-object", "--event", str(file), "--dry-run")
    assert (found["outcome"], found["reason"], found["detail"]) == ("skip", "requirement", "it is empty")


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["nothing"], 1, "there is no rule nothing; there is break-it, greet-object, greet-person"),
        (["greet-object"], 2, "give it one with --object URI or --event FILE"),
        (["greet-person", "--object", "s3://a/b"], 2, "--object goes with a rule on object.created"),
        (["greet-object", "--object", "s3://a"], 1, "must look like s3://bucket/key"),
        (["greet-object", "--object", "s3://abc/d"], 3, "KFP_TRIGGERS_OBJECTS__ENDPOINT"),
        (["greet-object", "--event", "/nowhere"], 2, "cannot read /nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_fired_says_why(shell: Shell, args: list[str], status: int, says: str) -> None:
    said = shell.run("fire", *args, status=status)
    assert says in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"[]", "is not a JSON object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"n": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"{}", "an event needs `type`"),
        (b'{"type": "object.created", "data": {}, "time": "x"}', "`time` must look like"),
        (event(type="git.push").encode(), "holds git.push, the rule waits for object.created"),
    ],
)
def test_what_is_no_event_is_2(shell: Shell, tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "event.json"
    file.write_bytes(content)
    assert says in shell.run("fire", "greet-object", "--event", str(file), status=2).err


def test_an_object_store_that_is_away_is_3(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_OBJECTS__ENDPOINT", "http://127.0.0.1:1")
    said = shell.run("fire", "greet-object", "--object", "s3://uploads/incoming/a.csv", status=3)
    assert said.err == "the object store does not answer: MaxRetryError\n"


def test_broken_rules_are_named_when_the_rule_is_not_there(shell: Shell, made: Path) -> None:
    broken = made / "rules" / "broken.yaml"
    broken.write_text("apiVersion: kfp-triggers/v1\nrules: {another: 5}\n")
    try:
        said = shell.run("fire", "another", status=1).err
        assert "there is no rule another" in said
        assert "rules/broken.yaml:2: rules.another" in said
    finally:
        broken.unlink()


def test_a_rule_is_fired_and_followed_to_its_end(shell: Shell, service: str) -> None:
    said = shell.process("fire", "greet-person", "--wait")
    lines = said.out.splitlines()
    assert re.fullmatch(r"event [0-9A-Z]{26}", lines[0])
    run_key = lines[-1].split()[1]
    assert lines[-1] == f"run {run_key} succeeded"
    assert said.err == ""
    assert "hello" in shell.run("runs", "logs", run_key).out
    found = shell.json("runs", "show", run_key)
    assert [move["after"] for move in found["transitions"]][:3] == ["ready", "submitting", "submitted"]
    assert found["transitions"][-1]["after"] == "succeeded"
    assert f"run:{run_key}" in shell.run("lineage", "show", f"event:{lines[0].split()[1]}").out


def test_a_run_that_fails_is_1_and_says_why(shell: Shell, service: str) -> None:
    said = shell.run("fire", "break-it", "--wait", status=1)
    assert said.out.splitlines()[-1].endswith("failed ValueError: nobody is called nobody")


def test_an_event_of_ones_own_passes_over_the_filters_but_not_the_requirements(
    shell: Shell, service: str, tmp_path: Path
) -> None:
    file = tmp_path / "event.json"
    file.write_text(event("elsewhere/b.csv", size=0))
    said = shell.run("fire", "greet-object", "--event", str(file), "--wait", status=1)
    assert said.out.splitlines()[-1] == "skip: requirement, it is empty"


def test_what_events_show_prints_can_be_fired_again(shell: Shell, service: str, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(event())
    first = shell.json("fire", "greet-object", "--event", str(file), "--wait")
    file.write_text(json.dumps(shell.json("events", "show", first["event"])))
    second = shell.json("fire", "greet-object", "--event", str(file), "--wait")
    assert first["event"] != second["event"]
    assert len({*first["runs"], *second["runs"]}) == 2
    assert shell.json("runs", "show", second["runs"][0])["params"]["text"] == "incoming/a.csv"


def test_without_anybody_to_decide_it_waits_in_the_store_and_says_so(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.commands.fire.QUIET", 0.2)
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", f"sqlite:///{tmp_path}/store.db")
    shell.run("migrate")
    said = shell.run("fire", "greet-person", "--wait", status=3)
    assert "does `kfp-triggers up` (or an api) run on this home? It is not lost." in said.err
    assert shell.json("events", "show", said.out.split()[1])["state"] == "accepted"
    assert shell.json("fire", "greet-person") == {"event": shell.json("events", "list")["items"][0]["id"], "runs": []}
