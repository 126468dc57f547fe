"""One value of each kind of secret goes through every path of real processes, and is found nowhere afterwards.

The foreign servers here are unkind: each repeats the credential that it was given in its error.
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults.stage import Mother, Stage, staged, template, until
from kfpserver import Stub, kfp_stub
from kfpworld import SCORING
from world import notification

from service import embedded
from service.lifecycle import TERMINAL
from service.records import Query
from service.supervise import Supervisor

KINDS = (
    "source hmac s3 mlflow store kfp parameter git code broker reader wrong cookie signature url"  # one for each secret
)
SECRETS = {kind: f"canary-{kind}-0123456789abcdef" for kind in KINDS.split()}
SHA = "7f3c1d0a9b8e5f6423c1d0a9b8e5f6423c1d0a9b"
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: secrets/source}, buckets: [user-ids]}
  code:
    type: github
    secrets: [{file: secrets/hmac}]
    repositories:
      acme/model:
        url: "%(server)s/acme/model.git"
        packages: {branches: [main], service_account: trainer, token: {file: secrets/git}}
    answers: {api: "%(server)s", token: {file: secrets/code}}
"""
LEGACY = """
  rule-%s:
    trigger: {source: uploads, event: object.created, key: "%s/**"}
    run:
      pipeline: legacy@v1
      params: {uri: "${event.object}"}
      secrets: {secret_key: {env: LEGACY_KEY}}
      writes: ["s3://predictions/${run.key}"]
"""
OTHERS = """
  rule-model:
    trigger: {source: uploads, event: object.created, key: "model/**"}
    lookup: {model: {mlflow_model: income-classifier, alias: champion}}
    run: {pipeline: scoring@v1, params: {uri: "${lookup.model.name}"}}
  rule-rows:
    trigger: {source: uploads, event: object.created, key: "rows/**"}
    lookup: {found: {object_rows: "${event.object}"}}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}-${lookup.found.rows}"}}
  rule-push:
    trigger: {source: code, event: git.push, branch: main}
    run: {pipeline: scoring@v1, params: {uri: "${event.sha}"}}
    answer: {}
  rule-commit:
    trigger: {source: code, event: git.push, branch: main}
    run: {package_from_commit: pipelines/train.yaml, params: {}}
"""
COMMANDS = """
doctor
settings
settings --json
verify --json
rules check --json
rules show --json
rules explain {event} --source uploads --json
rules explain {event} --source uploads --live
fire rule-ok --object s3://user-ids/ok/b.csv --dry-run
pipelines list
models list
models promote income-classifier 3
events list
events show {decided} --json
events show {poison} --json
runs list
runs show {ok} --json
runs show {fails} --json
runs logs {fails}
runs retry {dead} --new
lineage show s3://user-ids/ok/a.csv --json
drift show
dead list --json
dead show {poison}
dead show {dead} --json
dead retry {poison}
dead discard {poison} --why canary
backup {folder}/backup.db
forget --object s3://user-ids/fails/a.csv --why asked
"""
AWAY = ("settings --json", "doctor", "verify", "migrate")  # with a store that is not there


@contextmanager
def unkind() -> Iterator[tuple[str, list[str]]]:
    """An object store, a registry, a Git host: whatever is asked is refused, with the request's secrets in the words.

    Its address, and the paths that were asked for with a credential.
    """
    asked: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization", "")
            asked.append(f"{self.path} {'with' if given else 'without'}")
            if self.path.startswith("/api/2.0/mlflow"):
                status, told = 400, json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": f"not by {given}"})
            elif self.path.startswith(("/repos/", "/acme/")):
                status, told = 401, json.dumps({"message": f"not by {given}"})
            else:
                status, told = 403, f"<Error><Code>AccessDenied</Code><Message>{given}</Message></Error>"
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if told.startswith("{") else "application/xml")
            self.send_header("Content-Length", str(len(told)))
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.encode())

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def forms(secret: str) -> list[bytes]:
    """As it is, and as HTTP's Basic sends it under the names that we use."""
    encoded = [base64.b64encode(f"{user}:{secret}".encode()).rstrip(b"=")[:-4] for user in ("x-access-token", "user")]
    return [secret.encode(), *encoded]


def found_in(content: bytes) -> set[str]:
    return {kind for kind, secret in SECRETS.items() if any(form in content for form in forms(secret))}


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """Two pipelines; what `rule-fails` makes fails with the secret in its words; `rule-dead` is refused."""
    legacy = json.loads(json.dumps(SCORING).replace('"scoring"', '"legacy"'))
    legacy["root"]["inputDefinitions"]["parameters"]["secret_key"] = {"parameterType": "STRING"}
    (tmp_path / "kfp").mkdir()
    with kfp_stub(tmp_path / "kfp", "--pending", "0.1", "--running", "0.2") as one:
        for package in (SCORING, legacy):
            name = package["pipelineInfo"]["name"]
            one.upload("upload", json.dumps(package), name=name)
            listed = one.http.get("/apis/v2beta1/pipelines").json()["pipelines"]
            (found,) = (row["pipeline_id"] for row in listed if row["display_name"] == name)
            one.upload("upload_version", json.dumps(package), name="v1", pipelineid=found)
        one.script("rule-fails", outcome="fail", task="score", message=f"no key {SECRETS['parameter']}")
        answer = {"code": 3, "message": f"InvalidInputError: {SECRETS['kfp']} and {SECRETS['parameter']}"}
        one.fault("status", method="POST", path="/runs$", body="rule-dead", status=400, answer=answer, times=-1)
        yield one


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    with unkind() as one:
        yield one


@pytest.fixture
def stage(tmp_path: Path, stub: Stub, server: tuple[str, list[str]]) -> Iterator[Stage]:
    mother = Mother()
    one = staged(tmp_path, stub, mother, template(tmp_path))
    for kind, secret in SECRETS.items():
        embedded.write_private(one.home / "secrets" / kind, secret)
    text = (one.home / "settings.toml").read_text()
    one.write("settings.toml", text.replace('format = "json"', 'format = "json"\nlevel = "debug"'))
    one.write("sources.yaml", SOURCES % {"server": server[0]})
    one.rules(*(LEGACY % (name, name) for name in ("ok", "fails", "dead")), OTHERS)
    yield one
    one.close()
    mother.close()


def environment(stage: Stage, server: str, broker: str) -> dict[str, str]:
    """How the processes are given what is not a source's."""
    secrets = stage.home / "secrets"
    ours = {
        "API__TOKEN_FILE": str(secrets / "reader"),
        "BACKENDS__DEFAULT__TOKEN_FILE": str(secrets / "kfp"),
        "BROKER__URL": broker,
        "MLFLOW__TRACKING_URI": server.replace("//", f"//user:{SECRETS['mlflow']}@"),
        "OBJECTS__ENDPOINT": server,
        "OBJECTS__ACCESS_KEY": "user",
        "OBJECTS__SECRET_KEY": SECRETS["s3"],
        "SECRET_PARAMS": json.dumps({"legacy": ["env:LEGACY_*"]}),
    }
    return {f"KFP_TRIGGERS_{name}": value for name, value in ours.items()} | {"LEGACY_KEY": SECRETS["parameter"]}


def delivered(stage: Stage) -> bytes:
    """Everything that a sender may meet at the door; what it was told."""
    said = b""

    def post(source: str, body: bytes, status: int, **headers: str) -> None:
        nonlocal said
        given = {"content-type": "application/json", "cookie": SECRETS["cookie"]}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = httpx.post(f"http://127.0.0.1:{stage.port}/hooks/{source}", content=body, headers=given, timeout=20)
        assert answer.status_code == status, (source, body[:80], answer.text)
        said += answer.content + str(answer.headers).encode()

    good = f"Bearer {SECRETS['source']}"
    for number, name in enumerate(("ok", "fails", "dead", "model", "rows")):
        body = notification(f"{name}/a.csv", request=name, sequencer=f"187A5B1C2D3E4F5{number}")
        post("uploads", body, 202, authorization=good, x_gitlab_token=SECRETS["wrong"])
    post("uploads", b"not understood", 202, authorization=good)
    post("uploads", SECRETS["wrong"].encode(), 401, authorization=f"Bearer {SECRETS['wrong']}")
    post("uploads", b"{}", 415, authorization=good, content_encoding="gzip")
    post("uploads", b" " * (1 << 20) + b"{}", 413, authorization=good)
    post(SECRETS["wrong"], b"{}", 404, authorization=good)
    push = {"ref": "refs/heads/main", "before": "0" * 40, "after": SHA, "repository": {"full_name": "acme/model"}}
    body = json.dumps(push | {"commits": [], "head_commit": {"id": SHA, "message": "m"}}).encode()
    signed = "sha256=" + hmac.new(SECRETS["hmac"].encode(), body, hashlib.sha256).hexdigest()
    post("code", body, 401, x_github_event="push", x_hub_signature_256=f"sha256={SECRETS['signature']}")
    post("code", body, 202, x_github_event="push", x_hub_signature_256=signed, x_github_delivery="d-1")
    return said


def asked(stage: Stage) -> bytes:
    """Every route that the API has for a reader, every record of it; with the token, and with a wrong one."""
    said = b""
    with httpx.Client(base_url=f"http://127.0.0.1:{stage.port}", timeout=20) as http:

        def get(path: str, token: str = SECRETS["reader"], **query: str) -> Any:
            nonlocal said
            answer = http.get(path, headers={"authorization": f"Bearer {token}"}, params=query)
            said += answer.content + str(answer.headers).encode()
            assert answer.status_code == (401 if token == SECRETS["wrong"] else 200), (path, answer.text)
            return answer.json() if answer.status_code == 200 and path != "/metrics" else {}

        routes = [path for path, verbs in get("/api/v1/openapi.json")["paths"].items() if "get" in verbs]
        for path in (one for one in routes if "{" not in one and one != "/api/v1/lineage"):
            found = get(path).get("items", [])
            keys = [one.get("run_key") if path == "/api/v1/runs" else one.get("id") for one in found]
            for key in keys if path != "/api/v1/observations" else []:
                get(f"{path}/{key}")
        get("/api/v1/lineage", uri="s3://user-ids/ok/a.csv")
        get("/api/v1/events", token=SECRETS["wrong"])
    return said


def commanded(stage: Stage, env: dict[str, str], folder: Path) -> bytes:
    """The command line, where it does and where it fails; no command ends in a traceback."""
    runs = {run.rule.removeprefix("rule-"): run for run in stage.runs()}
    with stage.store() as store:
        (poison,) = store.events.list(Query(state="quarantined"))
    names = {name: run.run_key for name, run in runs.items()}
    names |= {"decided": runs["ok"].event_id, "poison": poison.id, "event": str(folder / "event.json")}
    (folder / "event.json").write_bytes(notification("ok/b.csv"))
    lines = [line.format(**names, folder=folder) for line in COMMANDS.strip().splitlines()]
    away = f"postgresql+psycopg://user:{SECRETS['store']}@127.0.0.1:1/x"
    asked_for = [(line, {}) for line in lines] + [(line, {"KFP_TRIGGERS_STORE__URL": away}) for line in AWAY]
    said = b""
    for line, more in asked_for:
        child = stage.start(*line.split(), **env, **more)
        status, told = child.ended(within=60), child.log.read_bytes()
        assert b"Traceback" not in told, (line, told)
        assert status in {0, 1, 3}, (line, told)
        said += told
    return said


def test_S13_a_secret_goes_where_it_is_meant_to_and_nowhere_else(  # noqa: N802 - the row's name
    stage: Stage, stub: Stub, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    embedded.write_private(folder / "secrets" / "redis", SECRETS["broker"])
    port = embedded.ports(folder, ["redis"])["redis"]
    with Supervisor(folder) as supervisor:
        supervisor.start(embedded.redis(folder, port))
        env = environment(stage, server[0], embedded.redis_url(folder, port))
        api = stage.api(**env)
        worker = stage.start("worker", **env)
        said = delivered(stage)
        until(lambda: _settled(stage), within=60, what=lambda: str([(r.rule, r.state, r.detail) for r in stage.runs()]))
        said += asked(stage) + commanded(stage, env, tmp_path)
        said += b"".join(child.log.read_bytes() for child in (api, worker))
        _check_paths(stage, server[1], said)
        kept = {path: path.read_bytes() for path in (stage.home / "data").rglob("*") if path.is_file()}
        kept[tmp_path / "backup.db"] = (tmp_path / "backup.db").read_bytes()
        assert any(path.name.endswith("-wal") and content for path, content in kept.items())
        for child in stage.children:
            if child.ended(within=0) is None:
                child.kill()
    assert found_in(said) == set()
    assert {path: found for path, content in kept.items() if (found := found_in(content))} == {}
    assert found_in((tmp_path / "kfp" / "kfp-stub.jsonl").read_bytes()) == {"parameter"}


def _settled(stage: Stage) -> bool:
    """All that can end has; the rest waits for a server that refuses it."""
    states = {run.rule: run.state for run in stage.runs()}
    with stage.store() as store:
        decided = {one.rule: one.outcome for one in store.decisions.list(Query(limit=50))}
    ends = ("rule-ok", "rule-fails", "rule-dead", "rule-push")
    return set(decided) == {*ends, "rule-model", "rule-rows", "rule-commit"} and all(
        states.get(rule) in TERMINAL for rule in ends
    )


def _check_paths(stage: Stage, asked_for: list[str], said: bytes) -> None:
    """That the secrets were on their way at all: else nothing found would mean nothing."""
    with_secret = {line.split(" ")[0].partition("?")[0] for line in asked_for if line.endswith(" with")}
    for path in ("/api/2.0/mlflow/", "/user-ids/rows/", "/repos/acme/model/", "/acme/model.git/"):
        assert any(one.startswith(path) for one in with_secret), (path, with_secret)
    ends = {run.rule: str(run.state) for run in stage.runs()}
    assert (ends["rule-ok"], ends["rule-fails"], ends["rule-dead"]) == ("succeeded", "failed", "dead")
    assert "no key …" in said.decode(errors="replace").replace("\\u2026", "…")
