"""The door's answer policy: what a sender is told, and what is kept. Over the wire where the wire matters."""

import dataclasses
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import FakeBell
from prometheus_client import generate_latest
from served import READ_TOKEN, Spoken, served
from world import TOKEN, World, notification

from service import log
from service.errors import Temporary
from service.records import Query
from service.settings import LogSettings
from service.store import writer as writer_module
from service.store.writer import Writer

JSON = {"content-type": "application/json"}
GOOD = JSON | {"authorization": f"Bearer {TOKEN}"}
LIMIT = 1 << 20  # of a MinIO source

Post = Callable[..., Any]


@pytest.fixture
def client(world: World) -> Spoken:
    return Spoken(world.app)


@pytest.fixture
def post(client: Spoken) -> Post:
    def posted(body: bytes = notification(), source: str = "uploads", **headers: str) -> Any:
        given = GOOD | {name.replace("_", "-"): text for name, text in headers.items()}
        return client.post(f"/hooks/{source}", content=body, headers=given)

    return posted


@pytest.fixture
def port(world: World) -> Iterator[int]:
    with served(world.app, body_timeout=0.5) as found:
        yield found


def wire(port: int, head: str, *pieces: bytes) -> tuple[int, bytes]:
    """Say this, byte for byte; the status and all that came back until the other side closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # it was told no, and went on talking
        told = b""
        try:
            while piece := connection.recv(65536):
                told += piece
        except ConnectionResetError:
            pass
    return (int(told.split(b" ", 2)[1]) if told else 0), told


def head(**headers: str) -> str:
    lines = {"Host": "x", "Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    lines |= {name.replace("_", "-"): text for name, text in headers.items()}
    return "POST /hooks/uploads HTTP/1.1\n" + "".join(f"{name}: {text}\n" for name, text in lines.items()) + "\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def events(world: World) -> Any:
    return world.store.events.list(Query(limit=500))


def test_a_new_delivery_is_202_and_a_known_one_200(post: Post, world: World) -> None:
    first, again = post(), post()
    assert (first.status_code, again.status_code) == (202, 200)
    told = first.json()
    assert set(told) == {"id", "events", "duplicate"}
    assert told["duplicate"] is False
    assert again.json() == told | {"duplicate": True}
    assert [item.id for item in events(world)] == told["events"]
    assert world.bell.rung == [("events.decide", told["events"][0])]


def test_one_object_told_by_two_deliveries_is_one_event(post: Post) -> None:
    first, second = post(notification(request="R1")), post(notification(request="R2"))
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["events"] == second.json()["events"]


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (notification("elsewhere/a.csv"), "accepted"),
        (notification("incoming/a.csv").replace(b'"user-ids"', b'"not-ours"'), "ignored"),
        (b"this is not JSON", "quarantined"),
        (b"{}", "quarantined"),
        (b"", "quarantined"),
        (b"\xff\xfe", "quarantined"),
        (b"[" * 100_000, "quarantined"),
        (b'{"Records": [' * 50_000, "quarantined"),
        (b'{"Records": null}', "quarantined"),
        (b'{"Records": "text"}', "quarantined"),
        (b'{"Records": [1, null, []]}', "quarantined"),
        (b'{"Records": [], "Records": []}', "quarantined"),
        (b'{"Records": [{"eventName": 5}]}', "quarantined"),
        (b'{"n": NaN}', "quarantined"),
        (b'{"n": ' + b"9" * 4301 + b"}", "quarantined"),
        (notification(size=10**30), "quarantined"),
        (notification(size=-1), "quarantined"),
        (notification(size="12"), "quarantined"),
        (notification("incoming/a\x00.csv"), "quarantined"),
        (notification().replace(b"incoming%2Fa.csv", b"\\ud800"), "quarantined"),
        (notification(sequencer="not hexadecimal"), "accepted"),
        (notification(userMetadata={"X-Amz-Meta-A": "\x00\ud800"}), "accepted"),
        (notification("incoming/" + "é" * 500 + ".csv"), "accepted"),
        (notification("incoming/../../etc/passwd"), "accepted"),
        (notification("incoming/a\u202eb.csv"), "accepted"),
    ],
    ids=lambda value: repr(value)[:50] if isinstance(value, bytes) else "",
)
def test_what_is_authentic_is_kept_whatever_it_says(post: Post, world: World, body: bytes, state: str) -> None:
    answer = post(body)
    assert answer.status_code == 202
    assert post(body).status_code == 200
    found = [str(item.state) for item in events(world)]
    assert set(found) == {state}
    assert post(notification("incoming/next.csv", eTag="next", request="next")).status_code == 202
    world.answer()
    assert "s3://user-ids/incoming/next.csv" in [run.params["uri"] for run in world.store.runs.list(Query())]


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        ({"source": "nobody"}, 404),
        ({"source": "nobody", "authorization": "Bearer x"}, 404),
        ({"content_encoding": "gzip"}, 415),
        ({"content_encoding": "identity, br"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": ""}, 415),
        ({"content_type": "text/plain", "authorization": "Bearer wrong"}, 415),
        ({"body": b"x" * (LIMIT + 1)}, 413),
        ({"body": b"x" * (LIMIT + 1), "authorization": "Bearer wrong"}, 413),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {READ_TOKEN}"}, 401),
        ({"authorization": "Bearer wrong", "body": b"not json"}, 401),
    ],
)
def test_what_is_refused_is_told_in_constant_words_and_leaves_nothing(
    post: Post, world: World, ask: dict[str, Any], status: int
) -> None:
    answer = post(**ask)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status"}
    assert answer.json()["status"] == status
    assert answer.content == post(**ask).content
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert events(world) == []
    assert world.store.events.deliveries(Query()) == []


@pytest.mark.parametrize(
    "header", [{"content_encoding": "identity"}, {"content_type": "application/JSON; charset=utf-8"}]
)
def test_the_same_thing_said_another_way_is_taken(post: Post, header: dict[str, str]) -> None:
    assert post(**header).status_code == 202


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_only_post_is_taken(client: Spoken, method: str) -> None:
    answer = client.request(method, "/hooks/uploads", headers=GOOD)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/hooks", "/hooks/", "/hooks/uploads/", "/hooks/uploads/x", "/hooks/a%2Fb", "//hooks/uploads"]
)
def test_no_other_path_is_a_hook(client: Spoken, path: str) -> None:
    assert client.post(path, content=notification(), headers=GOOD).status_code == 401


def test_a_secret_opens_its_own_source_only(post: Post, world: World) -> None:
    (world.home / "other.token").write_text("another-token-of-some-length\n")
    sources = (world.home / "sources.yaml").read_text()
    (world.home / "sources.yaml").write_text(
        sources + "  second: {type: minio, token: {file: other.token}, buckets: [user-ids]}\n"
    )
    assert post(source="second").status_code == 401
    assert post(source="second", authorization="Bearer another-token-of-some-length").status_code == 202
    assert post(authorization="Bearer another-token-of-some-length").status_code == 401


def test_a_rotated_secret_counts_at_once(post: Post, world: World) -> None:
    assert post().status_code == 202
    (world.home / "uploads.token").write_text("the-new-token-of-some-length")
    assert post().status_code == 401
    assert post(authorization="Bearer the-new-token-of-some-length").status_code == 200


@pytest.mark.parametrize("break_it", [Path.unlink, lambda path: path.write_text("\n")], ids=["gone", "empty"])
def test_a_secret_that_cannot_be_read_loses_nothing(
    post: Post, world: World, break_it: Callable[[Path], object]
) -> None:
    break_it(world.home / "uploads.token")
    answer = post()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    (world.home / "uploads.token").write_text(TOKEN)
    assert post().status_code == 202


def test_a_store_that_does_not_take_it_is_503_and_never_429(world: World) -> None:
    def accept(_arrival: object) -> Any:
        raise Temporary("the disk is full", delay=2)

    app = dataclasses.replace(world.app, accept=accept)
    answer = Spoken(app).post("/hooks/uploads", content=notification(), headers=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "disk" not in answer.text


def test_a_store_that_breaks_is_503_with_its_words_kept_inside(post: Post, world: World) -> None:
    with world.store.database.engine.connect() as connection:
        connection.exec_driver_sql("alter table delivery rename to gone")
        connection.commit()
    answer = post()
    assert answer.status_code == 503
    assert "delivery" not in answer.text


def test_when_the_store_stands_still_the_rest_answers_and_nothing_grows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries wait, up to as many as the settings say; more are told to come again, and looks are answered."""
    monkeypatch.setattr(writer_module, "PATIENCE", 60.0)
    writer = Writer(world.store.database, at_most=1000)
    app = dataclasses.replace(world.app, accept=writer.accept)
    app.rules.now()
    bodies = [notification(f"incoming/{number}.csv", eTag=str(number), request=str(number)) for number in range(200)]
    with (
        served(app, queue=20) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=httpx.Limits()) as client,
        ThreadPoolExecutor(len(bodies)) as pool,
    ):
        with world.store.database.write(alone="accept"):  # something else holds it
            answers = [pool.submit(client.post, "/hooks/uploads", content=body, headers=GOOD) for body in bodies]
            deadline = time.monotonic() + 20
            while not any(answer.done() for answer in answers):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert client.get("/healthz").status_code == 200
            assert client.post("/hooks/nobody", headers=GOOD).status_code == 404
            refused = [answer.result() for answer in answers if answer.done()]
            assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "2")}
        statuses = [answer.result().status_code for answer in answers]
    writer.close()
    assert set(statuses) == {202, 503}
    assert len(events(world)) == statuses.count(202)


def test_more_than_the_writers_queue_holds_is_503(world: World) -> None:
    writer = Writer(world.store.database, at_most=2)
    app = dataclasses.replace(world.app, accept=writer.accept)
    app.rules.now()
    bodies = [notification(f"incoming/{number}.csv", eTag=str(number), request=str(number)) for number in range(12)]
    with (
        served(app) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        with world.store.database.write(alone="accept"):
            answers = [pool.submit(client.post, "/hooks/uploads", content=body, headers=GOOD) for body in bodies]
            deadline = time.monotonic() + 5
            while not any(answer.done() for answer in answers):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert {answer.result().status_code for answer in answers if answer.done()} == {503}
        refused = [answer.result().status_code for answer in answers].count(503)
    writer.close()
    assert len(events(world)) == len(bodies) - refused


def test_five_of_one_at_once_are_one_event_and_one_run(world: World) -> None:
    writer = Writer(world.store.database, at_most=100)
    app = dataclasses.replace(world.app, accept=writer.accept)
    with served(app) as port, ThreadPoolExecutor(5) as pool:
        together = threading.Barrier(5)

        def deliver(_number: int) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.connect()
            together.wait()
            connection.request("POST", "/hooks/uploads", notification(), GOOD)
            status = connection.getresponse().status
            connection.close()
            return status

        statuses = sorted(pool.map(deliver, range(5)))
    writer.close()
    assert statuses == [200, 200, 200, 200, 202]
    assert len(world.bell.rung) == 1
    world.answer()
    assert len(events(world)) == len(world.backend.created) == 1


def test_a_thousand_replays_are_one_event(world: World) -> None:
    writer = Writer(world.store.database, at_most=1000)
    app = dataclasses.replace(world.app, accept=writer.accept)
    with served(app) as port, ThreadPoolExecutor(8) as pool:

        def replay(_number: int) -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            statuses = []
            for _ in range(125):
                connection.request("POST", "/hooks/uploads", notification(), GOOD)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            connection.close()
            return statuses

        statuses = [status for found in pool.map(replay, range(8)) for status in found]
    writer.close()
    assert (statuses.count(202), statuses.count(200)) == (1, 999)
    assert len(events(world)) == len(world.store.events.deliveries(Query())) == 1


def test_a_declared_oversize_is_refused_before_a_byte_of_it(port: int) -> None:
    status, told = wire(port, head(Content_Length=str(LIMIT + 1)))
    assert status == 413
    assert b"connection: close" in told.lower()


def test_a_chunked_oversize_is_cut_off_and_fills_no_memory(port: int) -> None:
    before = resident()
    pieces = (chunk(b"x" * 65536) for _ in range(200 * 16))  # 200 MiB
    status, _ = wire(port, head(Transfer_Encoding="chunked"), *pieces)
    assert status in {413, 0}  # 0: the reset overtook the answer, as it may when a sender goes on talking
    assert resident() - before < 96 << 20  # of 200: what else this process does in the meantime is in it too
    assert wire(port, head(Content_Length="2", Connection="close"), b"{}")[0] == 202


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_chunked_body_of_good_size_is_taken(port: int) -> None:
    body = notification()
    pieces = [chunk(body[start : start + 100]) for start in range(0, len(body), 100)]
    assert wire(port, head(Transfer_Encoding="chunked", Connection="close"), *pieces, b"0\r\n\r\n")[0] == 202


@pytest.mark.parametrize("sent", [b"", b'{"Rec'], ids=["nothing", "the beginning"])
def test_a_body_that_does_not_come_is_408_and_the_connection_ends(port: int, world: World, sent: bytes) -> None:
    started = time.monotonic()
    status, told = wire(port, head(Content_Length="100"), sent)
    assert status == 408
    assert b"connection: close" in told.lower()
    assert time.monotonic() - started < 5
    assert events(world) == []


def test_a_sender_that_goes_away_leaves_nothing_and_no_traceback(
    port: int, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head(Content_Length="100").replace("\n", "\r\n").encode() + b"{")
    assert wire(port, head(Content_Length="2", Connection="close"), b"{}")[0] == 202
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert len(events(world)) == 1


@pytest.mark.parametrize(
    "told",
    [
        head(Content_Length="-1"),
        head(Content_Length="1e3"),
        head(Content_Length="\xb2"),
        head(Content_Length="9" * 5000),
        head(Content_Length="5", Transfer_Encoding="chunked"),
        "POST /hooks/uploads\n\n",
        "nonsense\n\n",
    ],
)
def test_what_is_no_http_breaks_nothing(port: int, told: str) -> None:
    status, _ = wire(port, told, b"{}")
    assert status in {0, 400, 413, 415}
    assert wire(port, head(Content_Length="2", Connection="close"), b"{}")[0] in {200, 202}


def test_a_websocket_needs_the_token(port: int) -> None:
    key = "AAAAAAAAAAAAAAAAAAAAAA=="
    upgrade = f"Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}"
    for path in ("/api/v1/events", "/x/healthz", "/"):
        assert wire(port, f"GET {path} HTTP/1.1\nHost: x\n{upgrade}\n\n")[0] == 401
    for path in ("/healthz", "/hooks/uploads"):
        assert wire(port, f"GET {path} HTTP/1.1\nHost: x\n{upgrade}\n\n")[0] == 403


CANARY = "canary-0123456789-canary"


def test_a_credential_appears_nowhere(
    world: World, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an answer, the logs of either kind, the metrics, or a row: also when what handles it breaks."""
    (world.home / "uploads.token").write_text(CANARY)
    good = JSON | {"authorization": f"Bearer {CANARY}", "x-amz-meta-note": "x", "cookie": f"session={CANARY}"}
    wrong = JSON | {"authorization": f"Bearer {CANARY}-wrong", "x-gitlab-token": CANARY}
    said = ""
    for log_format in ("console", "json"):
        log.set_up(LogSettings(format=log_format))  # type: ignore[arg-type]
        client = Spoken(world.app)
        answers = [
            client.post("/hooks/uploads", content=notification(request=log_format), headers=good),
            client.post("/hooks/uploads", content=CANARY.encode(), headers=wrong),
            client.post(f"/hooks/{CANARY}", content=CANARY.encode(), headers=wrong),
            client.get(f"/api/v1/events/{CANARY}", headers=wrong),
            client.get(f"/api/v1/events?since={CANARY}", headers={"authorization": f"Bearer {READ_TOKEN}"}),
        ]
        broken = dataclasses.replace(world.app, accept=lambda _arrival: 1 // 0)  # type: ignore[arg-type]
        answer = Spoken(broken).post("/hooks/uploads", content=notification(request="R9"), headers=good)
        answers.append(answer)
        assert [answer.status_code for answer in answers][1:] == [401, 404, 401, 400, 503]
        said += "".join(answer.text + str(answer.headers) for answer in answers)
        captured = capfd.readouterr()
        assert "delivery_failed" in captured.err
        said += captured.out + captured.err
    said += generate_latest().decode()
    assert CANARY not in said
    world.store.database.engine.dispose()
    for file in world.home.glob("store.db*"):
        assert CANARY.encode() not in file.read_bytes()


def test_the_headers_that_are_kept_carry_no_credential(post: Post, world: World) -> None:
    secret = dict.fromkeys(("cookie", "x_gitlab_token", "x_hub_signature_256", "x_api_key", "proxy_authorization"), "s")
    delivery_id = post(user_agent="MinIO", **secret).json()["id"]
    kept = world.store.events.delivery(delivery_id)
    assert kept is not None
    assert dict(kept.headers) == {"content-type": "application/json", "user-agent": "MinIO"}


def test_the_doorbell_is_rung_only_for_what_is_new_and_to_be_decided(post: Post, world: World) -> None:
    assert isinstance(world.app.bell, FakeBell)
    post()
    post()
    post(b"not json")
    assert len(world.bell.rung) == 1


def test_what_is_refused_is_counted_under_its_source_and_status(post: Post) -> None:
    def count(source: str) -> float:
        from prometheus_client import REGISTRY

        labels = {"source": source, "status": "401"}
        return REGISTRY.get_sample_value("kfp_triggers_refusals_total", labels) or 0.0

    before = count("uploads")
    post(authorization="Bearer wrong")
    post(source="made-up-by-the-sender", authorization="Bearer wrong")
    assert count("uploads") == before + 1
    assert "made-up-by-the-sender" not in generate_latest().decode()


def test_an_event_is_stored_with_the_clocks_time(post: Post, world: World) -> None:
    answer = post()
    found = world.store.events.get(answer.json()["events"][0])
    assert found is not None
    assert found.received_at == world.clock.now()
    assert json.loads(json.dumps(answer.json()))["id"] == found.delivery_id
