"""The KFP adapter when something is wrong: what each refusal means, who we are, and what `doctor` finds."""

import http.server
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kfpserver import Stub, kfp_stub
from pydantic import SecretStr

from service.errors import Permanent, ServiceError, Temporary
from service.kubeflow import KubeflowBackend
from service.kubeflowapi import Api
from service.kubeflowerrors import Answer, Denied, Page, refused
from service.settings import BackendSettings

TOKEN = "a-very-secret-token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("kfp"), "--token", TOKEN) as one:
        yield one


@pytest.fixture
def stub(server: Stub) -> Iterator[Stub]:
    yield server
    server.configure(multi_user=False)
    server.reset()


def settings(stub: Stub | str, **given: Any) -> BackendSettings:
    url = stub if isinstance(stub, str) else stub.url
    return BackendSettings(**{"endpoint": url, "settle": 60.0, "timeout": 2.0} | given)


def answers(stub: Stub, path: str, status: int, body: Any, **headers: str) -> None:
    stub.fault("status", path=path, status=status, answer=body, headers=headers, times=-1)


def create(api: Api) -> None:
    api.ask("make a run", "runs.run_service_create_run", {"display_name": "x"})


def failure(api: Api) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        create(api)
    return caught.value


def test_an_error_says_what_was_done_and_what_was_answered(stub: Stub) -> None:
    answers(stub, "/runs$", 400, {"code": 3, "message": "first\n  second " + "x" * 400})
    detail = failure(Api(settings(stub))).detail
    assert detail.startswith("make a run: 400: first second xxx")
    assert len(detail) < 330


@dataclass(frozen=True)
class Case:
    """An answer to a POST, and what it means."""

    status: int
    message: Any
    kind: type[ServiceError]
    nothing: bool = False
    delay: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


LOST = "Failed to create a new run: Failed to create a run: InternalServerError: Failed to store run x to table: Error "
MISSING = "Failed to create a new run: InternalServerError: Failed to create a run due to error fetching manifest: "
CASES = {
    "bad request": Case(400, "input parameter i requires type double", Permanent),
    "unknown": Case(404, "ResourceNotFoundError: Experiment nope not found", Permanent),
    "taken": Case(409, "Already exist error", Permanent),
    "too large": Case(413, "entity too large", Permanent),
    "no name": Case(500, "Invalid input error: Run name cannot be empty", Permanent),
    "long name": Case(500, f"{LOST}1406 (22001): Data too long for column 'DisplayName' at row 1", Permanent),
    "emoji": Case(500, f"{LOST}1366 (22007): Incorrect string value: '\\xF0'", Permanent),
    "double id": Case(500, f"{LOST}1062 (23000): Duplicate entry 'x' for key 'PRIMARY'", Permanent),
    "no version": Case(500, f"{MISSING}ResourceNotFoundError: PipelineVersion x not found", Permanent),
    "wrong pipeline": Case(500, f"{MISSING}Invalid input error: Pipeline version x belongs to pipeline y", Permanent),
    "big workflow": Case(500, "Request entity too large: limit is 3145728", Permanent),
    "placeholder": Case(500, "root-driver failed to resolve {{pod.name}}", Permanent),
    "database away": Case(500, f"{LOST}2006: MySQL server has gone away", Temporary),
    "no manifest read": Case(500, f"{MISSING}dial tcp: connection refused", Temporary),
    "gateway": Case(502, "<html>Bad Gateway</html>", Temporary),
    "unavailable": Case(503, "upstream connect error", Temporary),
    "gateway time-out": Case(504, "", Temporary),
    "request time-out": Case(408, "", Temporary),
    "too many": Case(429, "slow down", Temporary, nothing=True, delay=7, headers=(("Retry-After", "7"),)),
    "unknown user": Case(401, "Unauthenticated", Denied, nothing=True, delay=45),
    "not allowed": Case(403, "PermissionDenied", Denied, nothing=True, delay=45),
    "login": Case(302, "", Page, nothing=True, delay=45, headers=(("Location", "https://dex/auth?state=secret"),)),
    "gateway's 404": Case(404, "<html>default backend - 404</html>", Page, nothing=True, delay=45),
    "no such API": Case(404, "Not Found", Page, nothing=True, delay=45),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_to_a_post_means(stub: Stub, name: str) -> None:
    case = CASES[name]
    is_json = case.message and not case.message.startswith(("<", "upstream"))
    answers(stub, "/runs$", case.status, {"message": case.message} if is_json else case.message, **dict(case.headers))
    error = failure(Api(settings(stub)))
    assert isinstance(error, case.kind)
    assert error.__cause__ is not None
    assert "secret" not in error.detail
    if isinstance(error, Temporary):
        assert error.nothing_happened is case.nothing
        assert case.delay in {None, error.delay}


def test_an_upload_is_refused_in_words_of_its_own(stub: Stub) -> None:
    answers(stub, "/upload_version$", 400, {"error_message": "unknown template format", "error_details": "stack"})
    with pytest.raises(Permanent, match="unknown template format"):
        Api(settings(stub)).raw("upload", "POST", "/apis/v2beta1/pipelines/upload_version", b"x", name="v")


@pytest.mark.parametrize("mode", ["close", "drop_answer", "cut_answer", "hang_after"])
def test_a_post_is_sent_once_and_a_get_at_most_twice(stub: Stub, mode: str) -> None:
    stub.fault(mode, method="POST", path="/experiments$", seconds=3, times=9)
    api = Api(settings(stub, timeout=0.5))
    with pytest.raises(Temporary) as caught:
        api.ask("make", "experiments.experiment_service_create_experiment", {"display_name": mode})
    assert not caught.value.nothing_happened
    assert stub.counts()["requests"]["POST /apis/v2beta1/experiments"]["total"] == 1
    stub.fault(mode, method="GET", path="/experiments$", seconds=3)
    if mode == "hang_after":
        with pytest.raises(Temporary, match=r"no answer within 0\.5 s"):
            api.ask("list", "experiments.experiment_service_list_experiments")
    else:
        assert api.ask("list", "experiments.experiment_service_list_experiments")["experiments"]


def test_a_server_that_is_not_there_has_done_nothing() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url, told in ((f"http://127.0.0.1:{port}", "refused"), ("http://no-such-host.invalid", "no address is known")):
        error = failure(Api(settings(url)))
        assert isinstance(error, Temporary)
        assert error.nothing_happened
        assert told in error.detail


def test_a_login_page_is_no_answer(stub: Stub) -> None:
    for mode in ("login_page", "redirect"):
        stub.fault(mode, path="/runs$")
        error = failure(Api(settings(stub)))
        assert isinstance(error, Page)
        assert "a login page answered" in error.detail
    assert stub.counts()["requests"]["POST /apis/v2beta1/runs"]["total"] == 2  # no redirect was followed


def test_a_right_that_is_missing_is_named() -> None:
    said = (
        b'{"message": "User x is not authorized with reason:  (request: &ResourceAttributes{Namespace:team,Verb:create,'
        b'Group:pipelines.kubeflow.org,Version:v1beta1,Resource:runs,Subresource:,Name:,}): Unauthorized access"}'
    )
    error = refused(Answer(status=403, data=said, headers={}), posted=True)
    assert error.detail == "403, not allowed: grant the verb create on runs.pipelines.kubeflow.org in namespace team"


def list_runs(given: BackendSettings) -> Any:
    return Api(given).ask("list runs", "runs.run_service_list_runs", namespace="team")


def test_a_token_is_shown(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.configure(multi_user=True)
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    for given in ({"token": SecretStr(TOKEN)}, {"token_file": file}, {"service_account": True}):
        assert list_runs(settings(stub, **given)) == {}
    with pytest.raises(Denied, match="does not know who we are"):
        list_runs(settings(stub))


def test_a_token_that_was_rotated_is_read_again(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old-and-as-long")
    api = Api(settings(stub, token_file=file))
    stub.fault("unauthorized", token="old-and-as-long")
    assert api.ask("list", "runs.run_service_list_runs") == {}
    stub.heal()
    stub.fault("unauthorized", token="new-and-as-long")
    stamp = file.stat().st_mtime_ns
    file.write_text("new-and-as-long")
    os.utime(file, ns=(stamp, stamp))  # as if written within the file system's resolution: the 401 tells
    assert api.ask("list", "runs.run_service_list_runs") == {}
    stub.heal()
    stub.fault("unauthorized", token="newer")
    file.write_text("newer")
    before = stub.counts()["unauthorized"]
    assert api.ask("list", "runs.run_service_list_runs") == {}
    assert stub.counts()["unauthorized"] == before


def test_a_post_is_made_again_after_a_401(stub: Stub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    stub.fault("status", path="/experiments$", status=401, answer={"message": "expired"})
    api = Api(settings(stub, token_file=file))
    made = api.ask("make", "experiments.experiment_service_create_experiment", {"display_name": "once"})
    assert made["display_name"] == "once"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", "schlüssel".encode(), None])
def test_a_token_file_that_is_no_token_is_told_without_its_content(stub: Stub, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    error = failure(Api(settings(stub, token_file=file)))
    assert isinstance(error, Temporary)
    assert error.nothing_happened
    assert str(file) in error.detail
    assert not any(word in repr(error) for word in ("two", "schl", "xff"))


@contextmanager
def echo(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that refuses everything with what it was sent, as a debugging proxy does; its address, and headers."""
    seen: list[dict[str, str]] = []

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): text for name, text in self.headers.items()})
            body = f'{{"message": "you sent {seen[-1].get("authorization")} {seen[-1].get("cookie")}"}}'.encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden one's name
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as one:
        if context:
            one.socket = context.wrap_socket(one.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http{'s' if context else ''}://127.0.0.1:{one.server_address[1]}", seen
        one.shutdown()


def test_cookies_are_sent_and_no_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "cookies"
    file.write_text("authservice_session=first")
    with echo() as (url, seen):
        api = Api(settings(url, token=SecretStr(TOKEN), cookies_file=file))
        for session in ("first", "second-one"):
            file.write_text(f"authservice_session={session}")
            with pytest.raises(Permanent, match="you sent") as caught:
                api.ask("list", "runs.run_service_list_runs")
            assert seen[-1]["cookie"] == f"authservice_session={session}"
            assert seen[-1]["authorization"] == f"Bearer {TOKEN}"
            told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__cause__}"
            assert not any(secret in told for secret in (TOKEN, session))
        with pytest.raises(Permanent):
            Api(settings(url, cookies=SecretStr("a=b"))).ask("list", "runs.run_service_list_runs")
        assert (seen[-1]["cookie"], seen[-1].get("authorization")) == ("a=b", None)


def test_a_certificate_must_be_vouched_for(tmp_path: Path) -> None:
    key, certificate, other = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "other.pem"
    for made in (other, certificate):
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=kfp"
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
        subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with echo(context) as (url, _):
        for given in ({"ca_file": certificate}, {"verify_tls": False}):
            with pytest.raises(Permanent, match="you sent"):
                list_runs(settings(url, **given))
        for given in ({}, {"ca_file": other}, {"ca_file": tmp_path / "absent.pem"}):
            with pytest.raises(Temporary, match="ca_file") as caught:
                list_runs(settings(url, **given))
            assert caught.value.nothing_happened


def found(given: BackendSettings) -> dict[str, tuple[bool, str]]:
    return {one.what: (one.good, one.detail) for one in KubeflowBackend("prod", given).check()}


def test_doctor_finds_a_healthy_server_well_and_leaves_nothing_behind(stub: Stub) -> None:
    told = found(settings(stub))
    assert list(told) == ["reachable", "version", "namespace", "may see runs", "may make runs"]
    assert all(good for good, _ in told.values())
    assert (stub.counts()["executed"], stub.counts()["runs"]) == (0, 0)


VERSIONS = {
    "2.5.1": (True, "2.5.1"),
    "2.99.0": (True, "newer than"),
    "1.8.5": (False, "2.0 or later"),
    "x": (True, "x"),
}


@pytest.mark.parametrize("tag", VERSIONS)
def test_doctor_knows_versions(stub: Stub, tag: str) -> None:
    answers(stub, "/healthz$", 200, {"tag_name": tag, "commit_sha": "0123456789abcdef", "multi_user": False})
    good, told = found(settings(stub))["version"]
    assert (good, VERSIONS[tag][1] in told) == (VERSIONS[tag][0], True)


def test_doctor_calls_kfp_1_by_its_name(stub: Stub) -> None:
    answers(stub, "v2beta1/healthz$", 404, {"code": 5, "message": "Not Found", "details": []})
    answers(stub, "v1beta1/healthz$", 200, {"commit_sha": "x", "tag_name": "1.8.5", "multi_user": False})
    assert found(settings(stub)) == {
        "reachable": (False, f"{stub.url}: this is Kubeflow Pipelines 1.x; 2.0 or later is needed")
    }


def test_doctor_knows_what_is_no_kfp(stub: Stub) -> None:
    stub.fault("login_page", times=-1)
    assert "a login page answered" in found(settings(stub))["reachable"][1]
    stub.heal()
    answers(stub, "/healthz$", 200, {"status": "ok"})
    assert "not Kubeflow Pipelines" in found(settings(stub))["reachable"][1]
    stub.heal()
    answers(stub, "/healthz$", 404, {"message": "Not Found"})
    assert "no such API" in found(settings(stub))["reachable"][1]


def test_doctor_says_that_it_is_down() -> None:
    assert found(settings("http://127.0.0.1:9"))["reachable"][0] is False


def test_doctor_tells_users_apart(stub: Stub, tmp_path: Path) -> None:
    stub.configure(multi_user=True, namespaces={"user@example.com": ["team"]})
    ours = {"token": SecretStr(TOKEN), "namespace": "team"}
    experiment = {"display_name": "Default", "namespace": "team"}
    Api(settings(stub, **ours)).ask("make", "experiments.experiment_service_create_experiment", experiment)
    assert all(good for good, _ in found(settings(stub, **ours)).values())
    nameless = found(settings(stub, token=SecretStr(TOKEN)))
    assert "set backends.prod.namespace" in nameless["namespace"][1]
    assert nameless["may see runs"][0] is False
    unknown = found(settings(stub, namespace="team"))
    assert "401" in unknown["may see runs"][1]
    assert unknown["may make runs"][0] is False
    stranger = found(settings(stub, token=SecretStr(TOKEN), namespace="others"))
    assert "grant the verb list on runs.pipelines.kubeflow.org in namespace others" in stranger["may see runs"][1]
    stub.configure(multi_user=False)
    assert "single-user" in found(settings(stub, namespace="team"))["namespace"][1]


def test_doctor_says_which_right_is_missing_to_make_runs(stub: Stub) -> None:
    stub.fault("status", path="/runs$", method="POST", status=403, answer={"message": "no"})
    good, told = found(settings(stub))["may make runs"]
    assert not good
    assert "the verb create on runs.pipelines.kubeflow.org" in told
