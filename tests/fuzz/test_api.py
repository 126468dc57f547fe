"""The API by its own OpenAPI: no 5xx, and every answer is one that it declares. On both stores, over the wire."""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from served import READ_TOKEN, served
from world import TOKEN, World, made, notification

from service.flow.receive import receive
from service.lifecycle import State
from triggers.event import Delivery

CREDENTIALS = [f"Bearer {READ_TOKEN}", f"Bearer {READ_TOKEN}", f"Bearer {TOKEN}", "Bearer x", "", "Basic \xff"]
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X"]
PARTS = ["", "api", "v1", "hooks", "uploads", "events", "runs", "lineage", "healthz", "readyz", "metrics", "%00", "%ff"]
PARTS += ["..", ".", "%2e%2e", "%2F", "?uri=%00", "?limit=9", "?since=0001-01-01T00:00:00%2B14:00", ";x", "#", "\x7f"]
HEADERS = {"content-type": ["application/json", "text/plain", "", "a/b;c=d"], "content-encoding": ["gzip", "identity"]}


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """With something of everything in it."""
    with ExitStack() as parts:
        server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
        one = parts.enter_context(made(tmp_path, parts.enter_context(server.database("migrated")) if server else ""))
        for number, end in enumerate([State.SUCCEEDED, State.FAILED]):
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            body = notification(f"incoming/{number}.csv", eTag=str(number), request=str(number))
            receive(one.app, Delivery(source="uploads", headers=headers, body=body, received_at=one.clock.now()))
            one.answer()
            one.backend.end(end)
            one.later(1)
        yield one


@pytest.fixture
def base_url(world: World) -> Iterator[str]:
    with served(world.app) as port:
        yield f"http://127.0.0.1:{port}"


def test_every_answer_is_one_that_is_declared(base_url: str, fuzz: Any) -> None:
    load_all_checks()
    checks = CHECKS.get_by_names(CHECKED)
    document = requests.get(f"{base_url}/api/v1/openapi.json", headers={"authorization": CREDENTIALS[0]}, timeout=10)
    schema = schemathesis.openapi.from_dict(document.json())
    schema.config.update(base_url=base_url)
    cases = schema.as_strategy(generation_mode=GenerationMode.POSITIVE) | schema.as_strategy(
        generation_mode=GenerationMode.NEGATIVE
    )

    def asked(case: Any, credential: str) -> None:
        answer = case.call(headers={"authorization": credential}, timeout=20)
        case.validate_response(answer, checks=checks)
        opened = case.path.startswith(("/healthz", "/readyz", "/metrics", "/hooks"))
        if credential != CREDENTIALS[0] and not opened:
            assert answer.status_code == 401

    fuzz.play(0.15, asked, case=cases, credential=st.sampled_from(CREDENTIALS))


def test_any_method_on_any_path_is_answered(base_url: str, fuzz: Any) -> None:
    address = base_url.removeprefix("http://")

    def asked(method: str, parts: list[str], headers: dict[str, str], credential: str, body: bytes) -> None:
        path = "/" + "/".join(parts).replace("/?", "?")
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            connection.putrequest(method, path.encode("latin-1", "replace").decode("latin-1").replace("\x7f", "%7f"))
            for name, value in {**headers, "authorization": credential, "content-length": str(len(body))}.items():
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders(body)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        assert answer.status < 500, said
        if answer.status >= 400 and method != "HEAD" and said != b"Invalid HTTP request received.":
            assert answer.headers["content-type"] == "application/problem+json"

    fuzz.play(
        0.05,
        asked,
        method=st.sampled_from(METHODS),
        parts=st.lists(st.sampled_from(PARTS), max_size=5),
        headers=st.fixed_dictionaries({}, optional={name: st.sampled_from(texts) for name, texts in HEADERS.items()}),
        credential=st.sampled_from(CREDENTIALS),
        body=st.sampled_from([b"", b"{}", b"\xff", notification()]),
    )
