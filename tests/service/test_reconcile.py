"""The scan: what no notification told of is taken in once, as what its notification would have told."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fakes import Killed
from world import RULES, SOURCES, World

from service.flow import reconcile as scans
from service.flow.forget import forget
from service.flow.reconcile import reconcile
from service.ledger import Claim
from service.lifecycle import State
from service.ports import ObjectInfo
from service.records import Query
from service.store.tables import event, tombstone

Drop = Callable[..., str]
START = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)


def put(world: World, key: str = "incoming/a.csv", **changes: object) -> ObjectInfo:
    """An object is put now, and nobody tells of it."""
    found = ObjectInfo(
        uri=f"s3://user-ids/{key}",
        size=12,
        etag="e1",
        version_id="",
        last_modified=world.clock.now() + timedelta(milliseconds=len(world.objects.versions) + 1),
        content_type="text/csv",
        metadata={},
    )
    found = dataclasses.replace(found, **changes)  # type: ignore[arg-type]  # of whatever field
    world.objects.versions.append(found)
    return found


def notified(world: World, drop: Drop, found: ObjectInfo) -> str:
    """What MinIO tells of it."""
    stamp = (found.last_modified - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return drop(
        found.uri.removeprefix("s3://user-ids/"),
        eTag=found.etag,
        versionId=found.version_id or None,
        sequencer=f"{stamp * 10**6 + 7:X}",
        request=f"R{stamp}",
    )


def scan(world: World, after: float = 300) -> int:
    """So much later the duty comes round; how many events there are then."""
    world.clock.forward(after)
    world.objects.at = world.clock.now()
    reconcile(world.app)
    return len(world.store.events.list(Query(limit=500)))


@pytest.fixture
def begun(world: World) -> World:
    """A world whose buckets were looked at once."""
    assert scan(world, 0) == 0
    return world


def test_what_nobody_told_of_is_run(begun: World) -> None:
    put(begun, metadata={"owner": "ada"})
    assert scan(begun) == 1
    begun.answer()
    (item,) = begun.store.events.list(Query())
    (run,) = begun.store.runs.of_event(item.id)
    assert (run.state, item.event.data["metadata"]) == (State.SUBMITTED, {"owner": "ada"})
    assert (item.event.data["content_type"], item.event.subject) == ("text/csv", "s3://user-ids/incoming/a.csv")
    (delivery,) = begun.store.events.deliveries(Query())
    assert delivery.headers == {"transport": "reconcile"}


@pytest.mark.parametrize("version_id", ["", "v1"])
@pytest.mark.parametrize("first", ["scan", "notification"])
def test_who_tells_too_tells_of_the_same_event(begun: World, drop: Drop, version_id: str, first: str) -> None:
    found = put(begun, version_id=version_id)
    if first == "notification":
        notified(begun, drop, found)
    assert scan(begun) == 1
    (item,) = begun.store.events.list(Query())
    assert notified(begun, drop, found) == item.id
    assert scan(begun) == 1
    begun.answer()
    assert len(begun.backend.created) == 1


def test_what_lay_there_before_the_first_look_is_no_event(world: World) -> None:
    for number in range(50):
        put(world, f"incoming/{number}.csv", last_modified=START - timedelta(hours=number, milliseconds=1))
    assert scan(world, 0) == 0
    assert scan(world) == 0
    put(world, "incoming/new.csv")
    assert scan(world) == 1


def test_what_is_young_is_left_to_its_notification(begun: World) -> None:
    begun.clock.forward(295)
    put(begun)
    assert scan(begun, 5) == 0
    assert scan(begun) == 1


def test_it_looks_when_its_time_has_come(begun: World) -> None:
    listings = begun.objects.listings
    scan(begun, 299)
    assert begun.objects.listings == listings
    scan(begun, 1)
    assert begun.objects.listings == listings + 2


def test_what_came_late_under_an_old_stamp_is_found(begun: World) -> None:
    """As of an upload in parts that began hours ago, where the store stamps by its beginning."""
    began = begun.clock.now()
    scan(begun, 3 * 3_600)
    put(begun, last_modified=began + timedelta(minutes=1))
    assert scan(begun) == 1


def test_after_a_long_absence_all_of_it_is_found(begun: World) -> None:
    for day in range(30):
        begun.clock.forward(86_400)
        put(begun, f"incoming/{day}.csv")
    assert scan(begun) == 30


def test_each_version_is_an_event(begun: World) -> None:
    for number in range(3):
        put(begun, etag=f"e{number}", version_id=f"v{number}")
    assert scan(begun) == 3


def test_what_was_removed_or_written_over_meanwhile_is_left_alone(begun: World) -> None:
    gone = put(begun)
    listed = [[gone, dataclasses.replace(gone, uri="s3://user-ids/incoming/b.csv")]]
    begun.objects.listed = lambda *_: iter(listed)  # type: ignore[method-assign]  # as it was a moment ago
    begun.objects.versions[:] = [dataclasses.replace(gone, etag="another")]
    assert scan(begun) == 0


def test_what_is_forgotten_does_not_come_back(begun: World) -> None:
    found = put(begun)
    assert scan(begun) == 1
    begun.answer()
    begun.backend.end()
    begun.later(5)
    forget(begun.app, found.uri, by="ada", why="")
    assert scan(begun) == 1


def test_a_key_that_is_known_by_its_tombstone_is_no_event(begun: World, drop: Drop) -> None:
    found = put(begun)
    event_id = notified(begun, drop, found)
    (item,) = begun.store.events.list(Query())
    left = {"source": "uploads", "kind": "identity", "key": item.event.identity, "ref": event_id}
    with begun.store.database.write() as connection:
        connection.execute(event.delete())
        connection.execute(tombstone.insert().values(left | {"event_ids": [], "until": 2**60}))
    assert scan(begun) == 0
    put(begun, "incoming/b.csv")
    assert scan(begun) == 1


def test_a_store_that_lists_whole_seconds_is_not_told_of_twice(begun: World, drop: Drop) -> None:
    """AWS: its notification has another millisecond, and comes later."""
    found = put(begun, last_modified=begun.clock.now() + timedelta(seconds=1))
    notified(begun, drop, dataclasses.replace(found, last_modified=found.last_modified + timedelta(milliseconds=418)))
    put(begun, etag="other", last_modified=found.last_modified + timedelta(seconds=9))
    assert scan(begun) == 2


def test_objects_that_a_run_wrote_keep_their_chain(begun: World) -> None:
    rules = RULES.replace('writes: ["s3://predictions/incoming', 'writes: ["s3://user-ids/incoming')
    begun.rules(rules)
    put(begun)
    scan(begun)
    begun.answer()
    (run,) = begun.store.runs.list(Query())
    put(begun, "incoming/by-metadata.csv", metadata={"run-key": run.run_key})
    put(begun, run.writes[0].removeprefix("s3://user-ids/"))
    assert scan(begun) == 3
    begun.answer()
    assert len(begun.store.runs.list(Query())) == 1
    assert sorted(one.reason for one in begun.store.decisions.list(Query()) if one.outcome == "skip") == ["loop"] * 2


def test_our_own_bucket_is_not_looked_through(begun: World) -> None:
    (begun.home / "sources.yaml").write_text(SOURCES.replace("predictions]", "kfp-triggers]"))
    scan(begun)
    assert {row.bucket for row in begun.store.scans.list() if row.looked_at == begun.clock.now()} == {"user-ids"}


def test_off_is_off_and_on_again_begins_anew(begun: World) -> None:
    (begun.home / "sources.yaml").write_text(SOURCES.replace("predictions]", "predictions], scan: off"))
    put(begun)
    assert scan(begun) == 0
    assert begun.store.scans.list() == []
    (begun.home / "sources.yaml").write_text(SOURCES)
    assert scan(begun) == 0
    put(begun, "incoming/b.csv")
    assert scan(begun) == 1


def test_by_default_it_is_on_only_where_there_is_a_store(world: World) -> None:
    world.objects.there = False
    scan(world, 0)
    assert world.store.scans.list() == []
    (world.home / "sources.yaml").write_text(SOURCES.replace("predictions]", "predictions], scan: {every: 1h}"))
    scan(world)
    assert len(world.store.scans.list()) == 2


def test_only_keys_under_the_prefix_are_listed(world: World) -> None:
    sources = SOURCES.replace("predictions]", "predictions], scan: {every: 30s, prefix: incoming/}")
    (world.home / "sources.yaml").write_text(sources)
    scan(world, 0)
    put(world)
    put(world, "outgoing/a.csv")
    assert scan(world, 31) == 1


def test_a_bucket_that_cannot_be_listed_is_said_once_and_holds_up_no_other(
    begun: World, caplog: pytest.LogCaptureFixture
) -> None:
    begun.objects.buckets.remove("predictions")
    put(begun)
    assert scan(begun) == 1
    bad, good = begun.store.scans.list()
    assert (bad.bucket, bad.problem) == ("predictions", "there is no s3://predictions/")
    assert (good.bucket, good.problem, good.found) == ("user-ids", "", 1)
    for _ in range(3):
        scan(begun, 61)
    said = [one for one in caplog.records if "bucket_not_scanned" in one.getMessage()]
    assert len(said) <= 1
    begun.objects.buckets.add("predictions")
    scan(begun, 61)  # a problem is looked at again before its turn
    assert [row.problem for row in begun.store.scans.list()] == ["", ""]


def test_while_the_store_is_away_nothing_is_passed_over(begun: World) -> None:
    begun.objects.away = True
    scan(begun)
    assert {row.problem for row in begun.store.scans.list()} == {"the object store does not answer"}
    begun.objects.away = False
    put(begun, last_modified=begun.clock.now() - timedelta(seconds=200))
    assert scan(begun, 61) == 1


def test_the_first_look_counts_from_then_though_the_store_is_away(world: World) -> None:
    world.objects.away = True
    scan(world, 0)
    put(world, last_modified=world.clock.now() + timedelta(seconds=30))
    world.objects.away = False
    assert scan(world, 61) == 1


def test_what_we_choke_on_holds_up_no_other(begun: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "BATCH", 1)
    put(begun, "incoming/a.csv")
    put(begun, "incoming/b.csv")
    real = begun.app.objects.stat

    def broken(uri: str, version_id: str = "") -> ObjectInfo:
        if uri.endswith("a.csv"):
            raise ZeroDivisionError
        return real(uri, version_id)

    begun.objects.stat = broken  # type: ignore[method-assign]  # a bug of ours, or a store's
    assert scan(begun) == 1
    assert "its log says where" in begun.store.scans.list()[1].problem
    begun.objects.stat = real  # type: ignore[method-assign]
    assert scan(begun, 61) == 2


def test_killed_in_the_middle_it_goes_on_and_tells_nothing_twice(begun: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "BATCH", 10)
    for number in range(35):
        put(begun, f"incoming/{number:02}.csv")
    real, left = begun.app.accept, [2]

    def dying(arrival: object) -> object:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(arrival)  # type: ignore[arg-type]  # passed on

    whole = begun.app
    begun.app = dataclasses.replace(whole, accept=dying)  # type: ignore[arg-type]  # as above
    with pytest.raises(Killed):
        scan(begun)
    begun.app = dataclasses.replace(whole, holder="another")
    assert scan(begun, begun.app.pace.lease + 1) == 35
    begun.answer()
    assert len(begun.backend.created) == 35


def test_whoever_lost_the_lease_stops(begun: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "BATCH", 10)
    for number in range(35):
        put(begun, f"incoming/{number:02}.csv")
    real = begun.app.accept

    def overtaken(arrival: object) -> object:
        begun.clock.forward(40)
        now = begun.clock.now()
        assert begun.store.leases.take("reconcile", Claim(holder="x", now=now, until=now + timedelta(seconds=30)))
        return real(arrival)  # type: ignore[arg-type]  # passed on

    begun.app = dataclasses.replace(begun.app, accept=overtaken)  # type: ignore[arg-type]  # as above
    assert scan(begun) == 10
    assert {row.found for row in begun.store.scans.list()} == {0}


def test_it_holds_its_lease_however_long_it_takes(begun: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "BATCH", 10)
    for number in range(35):
        put(begun, f"incoming/{number:02}.csv")
    real = begun.app.accept

    def slow(arrival: object) -> object:
        now = begun.clock.now()
        assert not begun.store.leases.take("reconcile", Claim(holder="x", now=now, until=now))
        begun.clock.forward(25)
        return real(arrival)  # type: ignore[arg-type]  # passed on

    begun.app = dataclasses.replace(begun.app, accept=slow)  # type: ignore[arg-type]  # as above
    assert scan(begun) == 35


def test_two_at_once_tell_of_each_once(begun: World) -> None:
    """A lease may be lost and not noticed: what keeps it once is the identity."""
    for number in range(30):
        put(begun, f"incoming/{number:02}.csv")
    begun.clock.forward(300)
    begun.objects.at = begun.clock.now()
    source, _ = scans.scanned(begun.app)[0]
    rows = [row for row in begun.store.scans.list() if row.bucket == "user-ids"]
    scope = scans.Scope(source=source, bucket="user-ids", prefix="", since=rows[0].since, until=scans.until(begun.app))
    one, two = ([item for page in scans.pages(begun.app, scope) for item in page.new] for _ in range(2))
    assert len(one) == len(two) == 30
    first = scans.take_in(begun.app, source, scans.described(begun.app, one))
    second = scans.take_in(begun.app, source, scans.described(begun.app, two))
    assert (len(first.new_event_ids), second.new_event_ids) == (30, ())


def test_what_is_redacted_is_not_kept_of_it_either(world: World) -> None:
    sources = SOURCES.replace("predictions]", 'predictions], redact: ["X-Amz-Meta-owner"]')
    (world.home / "sources.yaml").write_text(sources)
    scan(world, 0)
    put(world, metadata={"owner": "canary"})
    assert scan(world) == 1
    with world.store.database.read() as connection:
        rows = connection.exec_driver_sql("select body, data from delivery, event").all()
    assert not any("canary" in str(bytes(row[0])) + str(row[1]) for row in rows)


def test_a_scan_of_a_large_bucket_asks_the_store_once_a_page(begun: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun.objects.page = 100
    for number in range(450):
        put(begun, f"incoming/{number:03}.csv")
    asked: list[int] = []
    real = begun.store.scans.known
    monkeypatch.setattr(
        begun.store.scans, "known", lambda source, found: asked.append(len(found)) or real(source, found)
    )
    assert scan(begun) == 450
    assert asked == [100] * 4 + [50]
    assert len(begun.store.events.deliveries(Query(limit=500))) == 5
    row = begun.store.scans.list()[1]
    assert (row.seen, row.found, row.ended_at) == (450, 450, begun.clock.now())
