"""Secrets as parameters: allowed by the settings alone, read at submission, and found nowhere afterwards."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import Shell
from fakes import SCORING
from served import READ_TOKEN, Spoken
from world import World

from service.errors import Permanent, Refused, Temporary
from service.flow.mask import hidden
from service.flow.watch import watch
from service.kubeflow import KubeflowBackend
from service.lifecycle import TERMINAL, State
from service.local import LocalBackend
from service.packages import compiled
from service.ports import Job
from service.records import Query, RunRecord, document
from service.rulebook import RuleBook
from service.secretparams import AllowedSecrets
from service.settings import BackendSettings, load
from triggers.schema import Input
from triggers.yamlfile import Problems

CANARY = "canary/7Gq+x\"W'2\\pL9é"  # with signs that JSON, a URL and a shell would each write differently
OTHER = "AKIACANARY0001"
Drop = Callable[..., str]
RULES = """
apiVersion: kfp-triggers/v1
rules:
  legacy:
    trigger: {{source: uploads, event: object.created, key: "incoming/**"}}
    run:
      pipeline: {pipeline}
      params: {{uri: "${{event.object}}"}}
      secrets: {secrets}
      writes: ["s3://predictions/${{run.key}}"]
"""
KEYS = "{secret_key: {env: LEGACY_SECRET}, access_key: {file: secrets/access}}"
PIPELINES = '''
from kfp import compiler, components, dsl
step = dsl.component(base_image="python:3.11", install_kfp_package=False)

@step
def use(uri: str, access_key: str, secret_key: str) -> str:
    import hashlib
    return hashlib.sha256((access_key + secret_key).encode()).hexdigest()

@step
def talk(uri: str, access_key: str, secret_key: str):
    import json, sys
    print("connecting with", access_key, json.dumps(secret_key), repr(secret_key))
    print(f"InvalidAccessKeyId: {access_key} with {secret_key}")
    sys.exit(1)

@dsl.pipeline(name="legacy")
def legacy(uri: str, access_key: str, secret_key: str) -> str:
    return use(uri=uri, access_key=access_key, secret_key=secret_key).output

@dsl.pipeline(name="legacy-talks")
def talks(uri: str, access_key: str, secret_key: str):
    talk(uri=uri, access_key=access_key, secret_key=secret_key)

V1 = """
name: Upload
inputs:
- {name: data, type: CSV}
- {name: bucket, type: String}
- {name: access_key, type: String}
- {name: secret_key, type: String}
implementation:
  container:
    image: python:3.11
    command: [python3, upload.py]
    args: [{inputPath: data}, {inputValue: bucket}, {inputValue: access_key}, {inputValue: secret_key}]
"""
upload = components.load_component_from_text(V1)

@dsl.pipeline(name="legacy-upload")
def uploads(bucket: str, access_key: str, secret_key: str):
    data = dsl.importer(artifact_uri="s3://b/x.csv", artifact_class=dsl.Artifact).output
    upload(data=data, bucket=bucket, access_key=access_key, secret_key=secret_key)

for one in (legacy, talks, uploads):
    compiler.Compiler().compile(one, f"{one.name}@v1.yaml")
'''
ALLOWED = {"legacy*": ("env:LEGACY_*", "file:secrets/*")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("legacy")
    (folder / "compiled.py").write_text(PIPELINES)  # kfp reads a component's source from its file
    subprocess.run([sys.executable, "compiled.py"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def legacy(world: World, packages: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A home with such pipelines on the local backend, and settings that allow them their secrets."""
    home = world.home
    (home / "packages").symlink_to(packages)
    (home / "settings.toml").write_text('[secret_params]\n"legacy*" = ["env:LEGACY_*", "file:secrets/*"]\n')
    (home / "secrets").mkdir()
    (home / "secrets" / "access").write_text(OTHER + "\n")
    monkeypatch.setenv("LEGACY_SECRET", CANARY)
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    backend = LocalBackend(packages, home / "data" / "runs", None, 2, {"PATH": os.environ["PATH"]})
    allowed = AllowedSecrets(home, ALLOWED)
    rules = RuleBook(home, {"default": backend}, world.clock, every=0, kept=world.store.leases, forbids=allowed.forbids)
    world.app = replace(world.app, backends={"default": backend}, rules=rules, secrets=allowed)
    return world


def run_of(world: World) -> RunRecord:
    return world.store.runs.list(Query())[0]


def to_its_end(world: World) -> RunRecord:
    world.answer()
    deadline = time.monotonic() + 60
    while run_of(world).state not in TERMINAL:
        assert time.monotonic() < deadline, run_of(world)
        time.sleep(0.1)
        watch(world.app)
    return run_of(world)


def files_with(folder: Path, *words: str) -> list[str]:
    """Every file that holds one of these, the secrets' own folder apart."""
    found = [path for path in folder.rglob("*") if path.is_file() and "secrets" not in path.parts]
    assert len(found) > 5
    return [str(path) for path in found if any(word.encode() in path.read_bytes() for word in words)]


def test_a_pipeline_gets_its_secrets_and_nothing_else_does(
    legacy: World, drop: Drop, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.rules(RULES.format(pipeline="legacy@v1", secrets=KEYS))
    drop()
    run = to_its_end(legacy)
    assert run.state is State.SUCCEEDED, run.error
    assert run.outputs["parameters"]["Output"] == hashlib.sha256((OTHER + CANARY).encode()).hexdigest()
    assert run.secrets == {"secret_key": "env:LEGACY_SECRET", "access_key": "file:secrets/access"}
    assert set(run.params) == {"uri"}
    legacy.store.database.close()
    assert files_with(legacy.home, CANARY, OTHER) == []
    shown = [Shell().run("runs", *words).out for words in (("show", run.run_key), ("logs", run.run_key), ("list",))]
    shown.append(Shell().run("runs", "show", run.run_key, "--json").out)
    shown.append(
        Spoken(legacy.app).get(f"/api/v1/runs/{run.run_key}", headers={"authorization": f"Bearer {READ_TOKEN}"}).text
    )
    logged = capsys.readouterr()
    for said in (*shown, logged.out, logged.err, run.display_name, run.description):
        assert CANARY not in said
        assert OTHER not in said
    assert "env:LEGACY_SECRET" in shown[0]


def test_what_a_pipeline_says_of_its_secrets_is_told_without_them(
    legacy: World, drop: Drop, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy.rules(RULES.format(pipeline="legacy-talks@v1", secrets=KEYS))
    drop()
    run = to_its_end(legacy)
    assert run.state is State.FAILED
    assert run.error == "InvalidAccessKeyId: … with …"
    assert "connecting with … \"…\" '…'" in legacy.app.backends["default"].log(run.run_key)
    logged = capsys.readouterr()
    assert CANARY not in logged.out + logged.err
    legacy.store.database.close()
    assert files_with(legacy.home, CANARY, OTHER) == []


def test_what_a_pipeline_printed_is_not_repeated_once_its_secrets_cannot_be_read(
    legacy: World, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy.rules(RULES.format(pipeline="legacy-talks@v1", secrets=KEYS))
    drop()
    run = to_its_end(legacy)
    monkeypatch.delenv("LEGACY_SECRET")
    said = Shell().run("runs", "logs", run.run_key).out
    assert OTHER not in said
    assert "cannot be read" in said


def test_a_component_of_kfp_v1_loads_and_compiles_into_a_pipeline_that_takes_its_keys(packages: Path) -> None:
    found = compiled((packages / "legacy-upload@v1.yaml").read_bytes(), "legacy-upload")
    assert {name: one.type for name, one in found.inputs.items()} == dict.fromkeys(
        ("bucket", "access_key", "secret_key"), "STRING"
    )


def test_explain_shows_where_a_secret_is_and_not_what_it_is(legacy: World) -> None:
    legacy.rules(RULES.format(pipeline="legacy@v1", secrets=KEYS))
    event = {
        "source": "uploads", "type": "object.created", "subject": "s3://user-ids/incoming/a.csv",
        "data": {"object": "s3://user-ids/incoming/a.csv", "key": "incoming/a.csv", "bucket": "user-ids"},
    }  # fmt: skip
    (legacy.home / "event.json").write_text(json.dumps(event))
    said = Shell().run("rules", "explain", str(legacy.home / "event.json"), "--json")
    assert said.document[0]["rules"][0]["secrets"]["secret_key"] == "env:LEGACY_SECRET"
    assert CANARY not in said.out


@pytest.mark.parametrize(
    ("pipeline", "secrets", "complaint"),
    [
        ("legacy@v1", "{secret_key: {env: OTHER_SECRET}}", "the settings do not allow `env:OTHER_SECRET`"),
        ("legacy@v1", "{secret_key: {file: /etc/shadow}}", "the settings do not allow `file:/etc/shadow`"),
        ("legacy@v1", "{secret_key: {file: secrets/../settings.toml}}", "without `..`"),
        ("legacy@v1", "{secret_key: s3cret-in-the-file}", "a secret is never written into this file"),
        ("legacy@v1", "{secret_kye: {env: LEGACY_SECRET}}", "has no input `secret_kye`; did you mean `secret_key`?"),
        ("legacy@v1", "{uri: {env: LEGACY_SECRET}}", "stands under `params` too"),
        ("legacy@v1", "{run_key: {env: LEGACY_SECRET}}", "is set by kfp-triggers"),
    ],
)
def test_a_rule_gets_no_secret_that_the_settings_do_not_give_it(
    legacy: World, pipeline: str, secrets: str, complaint: str
) -> None:
    text = RULES.format(pipeline=pipeline, secrets=secrets)
    book = legacy.app.rules
    assert isinstance(book, RuleBook)
    with pytest.raises(Problems) as caught:
        book.check({"sources.yaml": (legacy.home / "sources.yaml").read_text(), "rules/rules.yaml": text})
    assert complaint in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_without_settings_no_rule_gets_a_secret(world: World) -> None:
    book = RuleBook(world.home, world.app.backends, world.clock, every=0)
    text = RULES.format(pipeline="scoring@v1", secrets="{model_version: {env: LEGACY_SECRET}}")
    with pytest.raises(Problems, match="for no pipeline"):
        book.check({"sources.yaml": (world.home / "sources.yaml").read_text(), "rules/rules.yaml": text})


def test_a_pipeline_from_a_commit_gets_no_secret(world: World) -> None:
    text = """
apiVersion: kfp-triggers/v1
rules:
  legacy:
    trigger: {source: model-repo, event: git.push}
    run: {package_from_commit: scoring.yaml, secrets: {key: {env: LEGACY_SECRET}}}
"""
    book = world.app.rules
    assert isinstance(book, RuleBook)
    with pytest.raises(Problems, match="only a pipeline that is named by"):
        book.check({"sources.yaml": (world.home / "sources.yaml").read_text(), "rules/rules.yaml": text})


@pytest.fixture
def scoring(world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch) -> World:
    """A run on the fake backend that is given a secret, decided and not yet submitted."""
    monkeypatch.setenv("LEGACY_SECRET", CANARY)
    monkeypatch.setitem(SCORING.inputs, "secret_key", Input(type="STRING", optional=True))  # type: ignore[arg-type]
    world.rules(RULES.format(pipeline="scoring@v1", secrets="{secret_key: {env: LEGACY_SECRET}}"))
    drop()
    return world


def test_a_secret_that_is_missing_makes_the_run_wait(scoring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEGACY_SECRET")
    scoring.answer()
    assert (run_of(scoring).state, run_of(scoring).detail) == (State.READY, "env:LEGACY_SECRET is not set or empty")
    monkeypatch.setenv("LEGACY_SECRET", CANARY)
    scoring.later(60)
    scoring.answer()
    assert [job.secrets for job in scoring.backend.jobs] == [{"secret_key": CANARY}]


def test_what_the_settings_took_back_is_not_submitted(scoring: World) -> None:
    scoring.app = replace(scoring.app, secrets=AllowedSecrets(scoring.home, {}))
    scoring.answer()
    assert run_of(scoring).state is State.DEAD
    assert "the settings do not allow `env:LEGACY_SECRET`" in run_of(scoring).error
    assert scoring.backend.jobs == []


@pytest.mark.parametrize("error", [Permanent(f"400: bad parameter {CANARY}"), Temporary(f"502: {CANARY}", delay=1)])
def test_a_server_that_repeats_a_secret_is_told_of_without_it(scoring: World, error: Permanent | Temporary) -> None:
    scoring.backend.before_create = error
    scoring.answer()
    scoring.backend.end(State.FAILED, f"cannot use {CANARY}")
    scoring.later(1)
    moves = scoring.store.runs.transitions(run_of(scoring).run_key)
    told = [run_of(scoring).error, run_of(scoring).detail, *(move.detail for move in moves)]
    assert CANARY not in "".join(told)
    assert "…" in "".join(told)


def test_of_a_run_that_was_given_the_secret_before_it_was_rotated_nothing_is_repeated(
    scoring: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.answer()
    monkeypatch.setenv("LEGACY_SECRET", "the-next-one")
    scoring.backend.end(State.FAILED, f"cannot use {CANARY}")
    scoring.later(1)
    run = run_of(scoring)
    assert run.state is State.FAILED
    for said in (run.error, hidden(scoring.app, run, f"log: {CANARY}")):
        assert CANARY not in said
        assert "have changed since" in said
    monkeypatch.setenv("LEGACY_SECRET", CANARY)
    assert hidden(scoring.app, run, f"log: {CANARY}") == "log: …"


def test_the_digest_of_a_runs_secrets_is_kept_before_they_are_sent_and_shown_nowhere(scoring: World) -> None:
    scoring.backend.after_create = Temporary("no answer", delay=1)
    scoring.answer()
    kept = scoring.store.runs.given(run_of(scoring).run_key)
    assert len(kept) == 128
    assert kept not in str(document(run_of(scoring)))


@pytest.fixture
def reporting(scoring: World) -> World:
    """Its run has written a report with a verdict, an observation and its datasets, and the secret in its texts."""
    scoring.answer()
    run = run_of(scoring)
    scoring.registry.made_by[run.run_key] = 5
    facts = {
        "note": f"connected with {CANARY}",
        "promotion": {
            "model": "income-classifier", "alias": "champion", "candidate": 5, "champion": 3, "verdict": "ask",
            "reasons": [f"{CANARY} was refused"],
        },
        "observation": {
            "kind": "quality", "model": "income-classifier", "version": 3, "as_of": "2026-11-21T07:00:00Z", "rows": 9,
            "subject": f"s3://{OTHER}@labels/a.csv", "figures": {"auc": 0.9},
        },
    }  # fmt: skip
    outputs = [{"namespace": "s3://out", "name": "a"}, {"namespace": "s3://out", "name": f"b?key={OTHER}"}]
    report = {"outputs": outputs, "run": {"facets": {"kfpTriggers_report": facts}}}
    scoring.objects.put(f"{run.report_uri}/a.json", json.dumps(report).encode())
    scoring.backend.end()
    return scoring


def recorded(world: World) -> tuple[list[int], list[int], set[str]]:
    """Versions put to a person and observed, and what the run's lineage says it wrote."""
    edges = world.store.lineage.out_of(f"run:{run_of(world).run_key}")
    return (
        [one.to_version for one in world.store.promotions.list(Query())],
        [one.version for one in world.store.observations.list(Query())],
        {edge.target for edge in edges if edge.relation == "wrote"},
    )


def test_a_run_whose_secret_cannot_be_read_at_its_end_is_recorded_once_it_can(
    reporting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEGACY_SECRET")
    reporting.later(1)
    assert (run_of(reporting).state, run_of(reporting).recorded_at) == (State.SUCCEEDED, None)
    monkeypatch.setenv("LEGACY_SECRET", CANARY)
    reporting.later(60)
    asked, observed, wrote = recorded(reporting)
    assert (asked, observed) == ([5], [3])
    assert "s3://out/a" in wrote
    assert run_of(reporting).outputs["reports"]["a.json"]["note"] == "connected with …"


@pytest.mark.parametrize("change", ["rotated", "taken back"])
def test_a_run_whose_secret_nobody_knows_any_more_keeps_its_verdict_and_none_of_its_texts(
    reporting: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "rotated":
        monkeypatch.setenv("LEGACY_SECRET", "the-next-one")
    else:
        reporting.app = replace(reporting.app, secrets=AllowedSecrets(reporting.home, {}))
    reporting.later(1)
    assert recorded(reporting) == ([5], [3], {"s3://out/a", "models:/income-classifier/5"})
    assert run_of(reporting).recorded_at
    assert "reports" not in run_of(reporting).outputs
    reporting.store.database.close()
    stored = b"".join(path.read_bytes() for path in reporting.home.glob("store.db*"))
    assert b"env:LEGACY_SECRET" in stored
    assert b"7Gq+x" not in stored
    assert OTHER.encode() not in stored


def test_a_job_does_not_show_its_secrets_when_it_is_printed(scoring: World) -> None:
    scoring.answer()
    (job,) = scoring.backend.jobs
    assert isinstance(job, Job)
    assert CANARY not in repr(job)


def test_kubeflow_is_sent_the_value_as_a_parameter(scoring: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring.answer()
    (job,) = scoring.backend.jobs
    backend = KubeflowBackend("kfp", BackendSettings(endpoint="http://127.0.0.1:1"))
    monkeypatch.setattr(backend, "_source", lambda _: {})
    monkeypatch.setattr(backend, "_experiment", lambda _: "e")
    assert backend._body(job)["runtime_config"]["parameters"]["secret_key"] == CANARY


@pytest.mark.parametrize(
    "toml",
    [
        '"legacy" = ["env:*"]',
        '"legacy" = ["LEGACY_SECRET"]',
        '"legacy" = ["file:*"]',
        '"legacy" = ["file:secrets/../x"]',
        '"*" = ["env:LEGACY_*"]',
        '"legacy" = "env:X"',
    ],
)
def test_settings_that_would_open_everything_are_refused(tmp_path: Path, toml: str) -> None:
    (tmp_path / "settings.toml").write_text(f"[secret_params]\n{toml}\n")
    with pytest.raises(Refused, match="secret_params"):
        load(tmp_path)
