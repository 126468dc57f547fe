"""The rows of the security matrix that no other test holds; SECURITY.md's table has them all, and is checked here."""

import ast
import json
import re
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import httpx
import pytest
from served import READ_TOKEN, served
from world import RULES, TOKEN, World, made, notification

from service.errors import Permanent, Refused, Temporary
from service.flow.receive import receive
from service.objects import S3Objects
from service.records import Query
from service.settings import MlflowSettings, ObjectSettings, load
from service.store import writer as writer_module
from service.tracking import MlflowRegistry
from service.web import hooks
from triggers.event import Delivery
from triggers.rules.expression import Context, ExpressionError, RuleError
from triggers.rules.template import Template

ROOT = Path(__file__).parents[2]
ALERTS = b'{"version": "4", "receiver": "NAME", "truncatedAlerts": 0, "alerts": []}'
GOOD = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made(tmp_path) as one:
        yield one


@dataclass
class Host:
    """A foreign server, and what it was asked."""

    address: str
    asked: list[str] = field(default_factory=list)


Hosts = Callable[..., Host]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Servers that give one answer to all, with the credential that they were given in its words."""
    with ExitStack() as stack:

        def hosted(status: int, location: str = "") -> Host:
            class Door(BaseHTTPRequestHandler):
                def _handle(self) -> None:
                    found.asked.append(self.path)
                    said = {"error_code": "INVALID_PARAMETER_VALUE", "message": self.headers.get("Authorization", "")}
                    told = json.dumps(said).encode()
                    self.send_response(status)
                    for name, value in (("Location", f"{location}/x"), ("Content-Length", str(len(told)))):
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(b"" if self.command == "HEAD" else told)

                do_GET = do_HEAD = do_POST = _handle  # noqa: N815 - http.server's names

                def log_message(self, *_: object) -> None:
                    """Silent."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Door))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(server.shutdown)
            found = Host(f"http://127.0.0.1:{server.server_port}")
            return found

        yield hosted


def received(world: World, key: str) -> None:
    delivery = Delivery(source="uploads", headers=GOOD, body=notification(key), received_at=world.clock.now())
    receive(world.app, delivery)
    world.answer()


def begun(port: int, count: int, body: bytes = b"", source: str = "uploads") -> Iterator[socket.socket]:
    """Senders who know no secret, and stop in the middle of their headers or of a body."""
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=20)
        head = f"POST /hooks/{source} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        one.sendall(head.encode() + (f"Content-Length: {2 * len(body)}\r\n\r\n".encode() + body if body else b""))
        yield one


def test_S04_bodies_of_many_senders_fill_no_memory(  # noqa: N802 - the row's name, here and below
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "IN_MEMORY", 2 << 20)  # half of it for one source
    with served(world.app, body_timeout=3) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def status() -> int:
            body = notification().ljust((1 << 20) - (32 << 10))
            return client.post("/hooks/uploads", content=body, headers=GOOD).status_code

        with ExitStack() as held:
            for one in begun(port, 10, b"x" * (40 << 10)):  # with the good one's, any of them is too much
                held.enter_context(one)
            deadline = time.monotonic() + 2.5
            while (found := status()) in {200, 202} and time.monotonic() < deadline:
                time.sleep(0.02)
            assert found == 503
        deadline = time.monotonic() + 20
        while (found := status()) == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found in {200, 202}


def test_S05_senders_who_never_end_their_headers_hold_up_nobody(world: World) -> None:  # noqa: N802
    """While they last nobody waits for them; that they are cut off is F28's to test."""
    with ExitStack() as held, served(world.app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for one in begun(port, 300):
            held.enter_context(one)
        took = []
        for number in range(100):
            began = time.monotonic()
            body = notification(f"other/{number}.csv", request=str(number), sequencer=f"187A5B1C{number:08X}")
            assert client.post("/hooks/uploads", content=body, headers=GOOD).status_code == 202
            took.append(time.monotonic() - began)
        held.close()
    assert sorted(took)[50] < 0.25, sorted(took)[-5:]


def test_S08_an_object_store_that_redirects_is_not_followed(hosts: Hosts) -> None:  # noqa: N802
    other = hosts(200)
    store = S3Objects(
        ObjectSettings.model_validate(
            {"endpoint": hosts(307, other.address).address, "access_key": "a", "secret_key": "canary-secret"}
        )
    )
    with pytest.raises(Temporary):
        store.stat("s3://bucket/key")
    with pytest.raises(Temporary):
        store.rows("s3://bucket/key", at_most=1 << 20)
    assert other.asked == []


def test_S08_a_registry_s_password_is_in_no_link_and_no_error(hosts: Hosts) -> None:  # noqa: N802
    unkind = hosts(400)
    registry = MlflowRegistry(MlflowSettings(tracking_uri=unkind.address.replace("//", "//user:canary-password@")))
    assert registry.link("m", 3) == f"{unkind.address}/#/models/m/versions/3"
    with pytest.raises(Permanent) as caught:
        registry.by_alias("m", "champion")
    assert caught.value.detail == "the model registry: INVALID_PARAMETER_VALUE: Basic …"
    assert unkind.asked


@pytest.mark.parametrize(
    "setting",
    ['[objects]\nendpoint = "http://u:canary@h:1"', '[backends.b]\nendpoint = "http://h"\nui = "http://u:canary@h"'],
)
def test_S13_an_address_that_is_shown_holds_no_password(tmp_path: Path, setting: str) -> None:  # noqa: N802
    (tmp_path / "settings.toml").write_text(setting)
    with pytest.raises(Refused) as caught:
        load(tmp_path)
    assert "canary" not in str(caught.value)


def test_S15_a_flood_on_one_source_leaves_the_others_theirs(  # noqa: N802
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store stands still; one source's queue is full and refuses, and another's delivery waits and is taken."""
    monkeypatch.setattr(writer_module, "PATIENCE", 60.0)
    writer = writer_module.Writer(world.store.database, at_most=1000)
    world.app.rules.now()
    with (
        served(replace(world.app, accept=writer.accept), queue=20) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=httpx.Limits()) as client,
        ThreadPoolExecutor(210) as pool,
    ):

        def post(source: str, body: bytes) -> int:
            return client.post(f"/hooks/{source}", content=body, headers=GOOD).status_code

        with world.store.database.write(alone="accept"):
            flood = [
                pool.submit(post, "uploads", notification(f"{number}.csv", request=str(number)))
                for number in range(200)
            ]
            for refused in islice(as_completed(flood, timeout=50), 200 - hooks.THREADS // 2 - 10):
                assert refused.result() == 503
            others = [pool.submit(post, "drift", ALERTS.replace(b"NAME", str(number).encode())) for number in range(5)]
            time.sleep(0.5)
            assert not any(one.done() for one in others)
        assert {one.result() for one in others} <= {200, 202}
    writer.close()


TEXT = {"event": {"key": "a" * 1000, "paths": ["x" * 1000] * 1000}}


@pytest.mark.parametrize(
    "source",
    [
        "${event.key.matches('(a*)*b')}",
        "${event.key.matches('" + "(a|aa)+" * 30 + "b')}",
        "${event.paths.filter(x, x.contains('y')).size() + event.paths.map(x, x + x).size()}",
        "${" + "+".join(["event.paths"] * 80) + "}",
        "${" + " || ".join(["event.paths.exists(x, x == 'y')"] * 28) + "}",
    ],
)
def test_S09_an_expression_at_every_bound_ends_soon(source: str) -> None:  # noqa: N802
    """No deadline stops one that is under way: its length, what it sees, and macros that do not nest bound it."""
    assert len(source) <= 1000 + len("${}")
    began = time.process_time()  # of a machine that is shared
    with suppress(ExpressionError, RuleError):
        Template.parse(source).evaluate(Context(TEXT))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "rules: " + "[" * 3000 + "]" * 3000,
        "apiVersion: !!python/object/apply:os.system [exit]\n",
        RULES + "rules: {}\n",
        RULES + "#" + "x" * (10 << 20),
        RULES + "unknown: 1\n",
    ],
    ids=["laughs", "deep", "object", "twice", "10 MiB", "unknown"],
)
def test_S10_a_rule_file_that_is_a_bomb_is_said_to_be_wrong_and_the_old_rules_stay(  # noqa: N802
    world: World, bomb: str
) -> None:
    before = world.app.rules.now().rules.hash
    world.rules(bomb)
    began = time.monotonic()
    after = world.app.rules.now()
    assert time.monotonic() - began < 5
    assert (after.rules.hash, len(after.problems) > 0) == (before, True)


def asking(word: str) -> str:
    """The rule with a template in this word of its `run`."""
    rest = RULES.replace("      pipeline: scoring@v1\n", "") if word == "pipeline" else RULES
    return rest.replace("      params:", f'      {word}: "a${{event.key}}"\n      params:', 1)


@pytest.mark.parametrize("word", ["pipeline", "package", "backend", "namespace", "image", "podSpecPatch"])
def test_S11_no_event_chooses_what_runs(world: World, word: str) -> None:  # noqa: N802
    world.rules(asking(word))
    (problem,) = world.app.rules.now().problems
    assert "rules.score.run" in problem


@pytest.mark.parametrize("word", ["experiment", "service_account", "pipeline_root"])
def test_S11_no_event_chooses_as_whom_it_runs(world: World, word: str) -> None:  # noqa: N802
    """It is no template there, but the text as it stands, which Kubernetes refuses."""
    world.rules(asking(word))
    received(world, "incoming/evil")
    assert [getattr(job, word) for job in world.backend.jobs] == ["a${event.key}"]


HOSTILE = (
    "../../etc/passwd", "a//b", "%00", "a\nb", "$(reboot)", "`id`;rm -rf /", "'; DROP TABLE runs; --",
    "\u202egnp.exe", "<script>alert(1)</script>", "é" * 500, "{{7*7}}", "a b+c%20d", "\\..\\x", "-rf", "~root/.ssh",
)  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_S12_a_key_arrives_to_the_letter_or_not_at_all(world: World, key: str) -> None:  # noqa: N802
    """From the door to the parameter and the reader's API; no file of ours is named by it."""
    world.rules(RULES.replace(', key: "incoming/**"', ""))
    files = set(world.home.rglob("*"))
    received(world, f"incoming/{key}")
    (event,) = world.store.events.list(Query())
    wanted = f"s3://user-ids/incoming/{key}"
    assert event.event.data["object"] == wanted
    assert [job.params["uri"] for job in world.backend.jobs] == ([] if "{{" in key else [wanted])
    with served(world.app) as port:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/v1/events/{event.id}", headers={"authorization": f"Bearer {READ_TOKEN}"}
        )
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["data"] == json.loads(json.dumps(event.event.data))
    assert {path for path in set(world.home.rglob("*")) - files if not path.name.startswith("store.db")} == set()


def test_S17_everything_that_is_installed_is_locked_by_its_hash() -> None:  # noqa: N802
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    outside = [one for one in packages if "registry" in one["source"]]
    assert len(outside) > 100
    ours = [one for one in packages if one not in outside]
    assert [one["name"] for one in ours] == ["kfp-triggers"]
    for one in outside:
        for part in [*one.get("wheels", []), *([one["sdist"]] if "sdist" in one else [])]:
            assert part["hash"].startswith("sha256:"), one["name"]
    for file in ("Dockerfile", "Makefile"):
        synced = re.findall(r"uv\)? sync.*|/uv sync.*|\$\(UV\) sync.*", (ROOT / file).read_text())
        assert synced
        assert all("--frozen" in line for line in synced)


def rows() -> dict[str, list[str]]:
    """Of SECURITY.md's last table: a row of the matrix, and the tests that it names."""
    table = (ROOT / "SECURITY.md").read_text().partition("## Proved by")[2]
    lines = [line.split("|") for line in table.splitlines() if re.match(r"\| S\d", line)]
    return {line[1].strip(): re.findall(r"`(tests/[^`]+)`", line[3]) for line in lines}


def test_the_table_names_every_row_and_tests_that_there_are() -> None:
    found = rows()
    assert list(found) == [f"S{number}" for number in range(1, 19)]
    for row, tests in found.items():
        assert tests, row
        for test in tests:
            file, _, name = test.partition("::")
            tree = ast.parse((ROOT / file).read_text())
            assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, test


def test_every_row_s_own_test_is_in_the_table() -> None:
    told = {test for tests in rows().values() for test in tests}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        names = [one.name for one in ast.parse(file.read_text()).body if isinstance(one, ast.FunctionDef)]
        for name in (one for one in names if re.match(r"test_S\d\d_", one)):
            assert f"tests/security/{file.name}::{name}" in told
