"""A real MinIO: what a scan finds is to the letter what the notification tells, whoever comes first."""

import dataclasses
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path

import pytest
from command import Shell
from faults.stage import until
from minio import Minio
from minio.commonconfig import ENABLED, CopySource, Tags
from minio.versioningconfig import VersioningConfig
from pydantic import SecretStr
from world import PACKAGE, RULES, SOURCES, TOKEN, World

from service import buckets, embedded
from service.errors import Permanent, Temporary
from service.flow.receive import receive
from service.flow.reconcile import reconcile
from service.objects import PAGE, S3Objects
from service.ports import App
from service.records import EventRecord, Query
from service.settings import ObjectSettings
from service.supervise import Supervisor
from triggers.event import Delivery

KEYS = [
    *("a.csv", "a b.csv", "a+b.csv", "a%20b.csv", "a%2Fb.csv", "a&b=c?d#e", "é/ü.csv", "🎉", "~*", "..a/b"),
    *("folder/", "quote\"'<>", "back\\slash", "line\nend", "tab\t", "semi;colon", "k" * 200 + "/" + "z" * 200),
]
BUCKETS = {"plain": False, "versioned": True}


class Receiver:
    """Who is told by webhook: keeps every body."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        kept = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                kept.append(self.rfile.read(int(self.headers["content-length"])))
                self.do_HEAD()

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture(scope="module")
def told() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, told: Receiver) -> Iterator[embedded.S3]:
    """With a bucket that has versions and one that has none, both of which tell the receiver, and objects in them."""
    folder = tmp_path_factory.mktemp("minio")
    port = embedded.ports(folder, ["minio"])["minio"]
    store, hook = (
        embedded.s3(folder, port, {}),
        embedded.Webhook("UPLOADS", f"http://127.0.0.1:{told.server.server_port}/", "t"),
    )
    with Supervisor(folder) as supervisor:
        supervisor.start(embedded.minio(folder, port, [hook]))
        minio = buckets.client(store)
        for name, versions in BUCKETS.items():
            minio.make_bucket(name)
            if versions:
                minio.set_bucket_versioning(name, VersioningConfig(ENABLED))
            buckets.report(store, name, hook)
            fill(minio, name)
        until(lambda: len(told.bodies) >= 2 * (len(KEYS) + 6), what="all was told of")
        yield store


def fill(minio: Minio, bucket: str) -> None:
    """Everything that makes an object, and what must make none."""
    for key in KEYS:
        body = b"" if key.endswith("/") else b"user_id\n1\n"
        headers = {"Owner": "ml team", "run-key": "abc"}
        minio.put_object(bucket, key, io.BytesIO(body), len(body), content_type="text/csv", metadata=headers)
    minio.put_object(bucket, "parts", io.BytesIO(b"x" * (6 << 20)), 6 << 20, part_size=5 << 20)
    minio.put_object(bucket, "over", io.BytesIO(b"1"), 1)
    minio.put_object(bucket, "over", io.BytesIO(b"1"), 1)
    minio.copy_object(bucket, "copied", CopySource(bucket, "a.csv"))
    minio.copy_object(
        bucket, "a+b.csv", CopySource(bucket, "a+b.csv"), metadata_directive="REPLACE", metadata={"x": "1"}
    )
    tags = Tags.new_object_tags()
    tags["seen"] = "yes"
    minio.set_object_tags(bucket, "a.csv", tags)
    minio.put_object(bucket, "gone", io.BytesIO(b"1"), 1)
    minio.remove_object(bucket, "gone")


@pytest.fixture
def real(world: World, s3: embedded.S3) -> World:
    """A world on it, whose buckets were looked at before anything was in them."""
    (world.home / "sources.yaml").write_text(SOURCES.replace("[user-ids, predictions]", "[plain, versioned]"))
    rules = (world.home / "rules" / "rules.yaml").read_text()
    world.rules(rules.replace(', key: "incoming/**"', ""))
    world.clock.at = datetime.now(UTC) + timedelta(seconds=1)
    pace = world.app.pace.model_copy(update={"notice": 0.0})
    world.app = dataclasses.replace(world.app, objects=objects(s3), pace=pace)
    for bucket in BUCKETS:
        world.store.scans.begin("uploads", bucket, world.clock.now() - timedelta(minutes=30))
    return world


def objects(s3: embedded.S3, access_key: str = "") -> S3Objects:
    key, secret = SecretStr(access_key or s3.access_key), SecretStr(s3.secret_key)
    return S3Objects(ObjectSettings(endpoint=s3.endpoint, access_key=key, secret_key=secret))


def tell(app: App, told: Receiver) -> list[bool]:
    """Every notification arrives; which of them were known."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    deliveries = [
        Delivery(source="uploads", headers=headers, body=body, received_at=app.clock.now()) for body in told.bodies
    ]
    return [receive(app, one).duplicate for one in deliveries]


def created(world: World) -> dict[str, EventRecord]:
    found = world.store.events.list(Query(limit=500))
    return {one.event.identity: one for one in found if one.event.type == "object.created"}


def test_a_scan_finds_what_was_told_and_to_the_letter_the_same(real: World, told: Receiver) -> None:
    reconcile(real.app)
    assert [row.problem for row in real.store.scans.list()] == ["", ""]
    found = created(real)
    with_versions = {one.event.subject for one in found.values() if one.event.data["version_id"]}
    assert with_versions == {
        f"s3://versioned/{key}" for key in [*KEYS, "parts", "over", "copied", "gone"] if key != "folder/"
    }  # MinIO gives a folder no version
    assert {f"s3://plain/{key}" for key in [*KEYS, "parts", "over", "copied"]} < {
        o.event.subject for o in found.values()
    }
    tell(real.app, told)
    after = created(real)
    untold = {one.event.subject for key, one in after.items() if key not in found}
    assert untold == {"s3://plain/over", "s3://plain/a+b.csv", "s3://plain/gone"}  # written over or gone by then
    for _ in range(3):  # of one object one run after the other
        real.answer()
        real.backend.end()
        real.later(1)
    refused = [one for one in real.store.decisions.list(Query(limit=500)) if one.outcome == "skip"]
    assert {one.reason for one in refused} == {"bad_parameter"}  # the emoji, which KFP's database cannot hold
    assert len(real.backend.created) == len(after) - len(refused)


def test_what_was_told_is_not_found_again(real: World, told: Receiver) -> None:
    tell(real.app, told)
    before = created(real)
    reconcile(real.app)
    assert created(real).keys() == before.keys()
    assert [row.found for row in real.store.scans.list()] == [0, 0]


def test_both_tell_the_same_of_it(real: World, told: Receiver) -> None:
    reconcile(real.app)
    found = created(real)
    with real.store.database.write() as connection:
        connection.exec_driver_sql("delete from event")
        connection.exec_driver_sql("delete from delivery")
    tell(real.app, told)
    heard = created(real)
    both = found.keys() & heard.keys()
    assert len(both) == len(found)
    for one in both:
        assert (found[one].event.data, found[one].event.time) == (heard[one].event.data, heard[one].event.time)
        assert found[one].event.run_key == heard[one].event.run_key


def test_a_listing_goes_on_after_a_page(s3: embedded.S3) -> None:
    minio = buckets.client(s3)
    minio.make_bucket("large")
    minio.set_bucket_versioning("large", VersioningConfig(ENABLED))
    names = [f"{number // 100}/{number:03} +%é" for number in range(PAGE - 50)]
    puts = [*names, *names[900:901] * 120]  # the end of a page is between versions of one key
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: minio.put_object("large", name, io.BytesIO(b""), 0), puts))
    minio.remove_object("large", names[0])
    pages = list(objects(s3).listed("large"))
    assert [len(page) for page in pages] == [PAGE, 70]
    listed = list(chain.from_iterable(pages))
    assert {one.uri for one in listed} == {f"s3://large/{name}" for name in names}
    assert len({(one.uri, one.version_id) for one in listed}) == PAGE + 70
    some = list(chain.from_iterable(objects(s3).listed("large", "7/")))
    assert {one.uri for one in some} == {f"s3://large/{name}" for name in names if name.startswith("7/")}


def test_a_listing_that_is_refused_says_so(s3: embedded.S3) -> None:
    with pytest.raises(Permanent, match="there is no s3://no-such-bucket/"):
        next(objects(s3).listed("no-such-bucket"))
    with pytest.raises(Temporary, match="refuses s3://plain/"):
        next(objects(s3, "nobody").listed("plain"))
    assert not list(chain.from_iterable(objects(s3).listed("plain", "no-such-prefix/")))


def test_the_stores_clock_is_told_to_whom_it_refuses(s3: embedded.S3) -> None:
    apart = objects(s3, "nobody").now() - datetime.now(UTC)
    assert -timedelta(seconds=5) < apart < timedelta(seconds=1)
    with pytest.raises(Temporary, match="does not answer"):
        S3Objects(ObjectSettings(endpoint="http://127.0.0.1:1")).now()


@pytest.fixture
def shell(home: Path, s3: embedded.S3, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A home on it, with a rule; nothing runs there."""
    (home / "sources.yaml").write_text(SOURCES.replace("[user-ids, predictions]", "[plain, versioned]"))
    (home / "uploads.token").write_text(TOKEN)
    for folder, name, text in (
        ("rules", "rules.yaml", RULES.replace("incoming/", "folder")),
        ("packages", "scoring@v1.yaml", PACKAGE),
    ):
        (home / folder).mkdir()
        (home / folder / name).write_text(text)
    told = {"ENDPOINT": s3.endpoint, "ACCESS_KEY": s3.access_key, "SECRET_KEY": s3.secret_key}
    for name, value in told.items():
        monkeypatch.setenv(f"KFP_TRIGGERS_OBJECTS__{name}", value)
    monkeypatch.setenv("KFP_TRIGGERS_PACE__NOTICE", "0")
    shell = Shell()
    shell.run("migrate")
    return shell


def test_a_buckets_history_is_taken_in_by_hand_and_once(shell: Shell) -> None:
    time.sleep(1)  # its clock is told in whole seconds
    asked = ("reconcile", "--since", "1h", "--bucket", "plain")
    would = shell.json(*asked, "--dry-run")
    assert (would["dry_run"], would["found"], would["young"]) == (True, len(KEYS) + 3, 0)
    rules = {item["object"]: item["rules"] for item in would["items"]}
    assert rules["s3://plain/folder/"] == ["score"]
    assert rules["s3://plain/a b.csv"] == []
    assert shell.json("events", "list") == {"items": []}
    said = shell.run(*asked, "--prefix", "a").out
    assert "s3://plain/a%2Fb.csv  no rule wants it" in said
    done = shell.json(*asked)
    assert done["found"] + len(said.splitlines()) - 1 == would["found"]
    assert shell.json(*asked)["found"] == 0
    assert "found_by     reconcile" in shell.run("events", "show", done["items"][0]["event"]).out
    assert shell.json("verify", status=0)["events"]["accepted"] == would["found"]


def test_by_hand_a_wrong_word_is_said_before_anything_is_done(shell: Shell) -> None:
    assert "there is uploads plain, uploads versioned" in shell.run("reconcile", "--bucket", "x", status=2).err
    assert "never looked through: say since when" in shell.run("reconcile", status=1).err
    assert "not a time" in shell.run("reconcile", "--since", "yesterday", status=2).err


def test_doctor_says_which_bucket_cannot_be_looked_through(shell: Shell, home: Path) -> None:
    def scans() -> dict[str, tuple[bool, str]]:
        return {
            item["what"]: (item["good"], item["detail"])
            for item in shell.json("doctor", status=1)["items"]
            if item["where"] == "scan"
        }

    assert scans() == {"uploads plain": (True, "every 300 s"), "uploads versioned": (True, "every 300 s")}
    sources = (home / "sources.yaml").read_text()
    (home / "sources.yaml").write_text(sources.replace("versioned]", "no-such-bucket]"))
    assert scans()["uploads no-such-bucket"] == (False, "cannot be looked through: there is no s3://no-such-bucket/")
    (home / "sources.yaml").write_text(sources.replace("versioned]", "versioned], scan: off"))
    assert scans() == {"uploads": (True, "off: an object that no notification tells of is not found")}
