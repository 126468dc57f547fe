"""Forgetting: a name goes from every row that names it and from no other; what happened, and what is known, stays."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command import Shell
from sqlalchemy import select
from world import World

from service.errors import Permanent, Temporary
from service.flow import retry
from service.flow.forget import forget
from service.lifecycle import State
from service.records import Edge, Query
from service.store.tables import metadata

Drop = Callable[..., str]
KEY = "incoming/jane doe+1/jane-doe.csv"
URI = f"s3://user-ids/{KEY}"
#: As the store, a URL and a JSON document write it.
TRACES = (b"jane doe", b"jane-doe", b"jane+doe", b"jane%20doe", b"secret-of-jane")


def finished(world: World, drop: Drop, key: str, **changes: object) -> str:
    event_id = drop(key, request=key, **changes)
    world.answer()
    world.backend.end(State.FAILED, error=f"cannot read s3://user-ids/{key}.")
    world.later(5)
    return event_id


def of_jane(world: World, drop: Drop) -> str:
    return finished(world, drop, KEY, userMetadata={"X-Amz-Meta-Note": "secret-of-jane"})


def everything(world: World) -> bytes:
    """The bytes of the store, its journal too; of a server's store what its rows hold."""
    files = b"".join(path.read_bytes() for path in Path(world.home).glob("store.db*"))
    return files or repr(rows(world, but=())).encode()


def rows(world: World, but: tuple[str, ...] = ("lease", "handling", "salt", "rule_set")) -> dict[str, list[Any]]:
    with world.store.database.read() as connection:
        return {
            table.name: connection.execute(select(table)).all()
            for table in metadata.sorted_tables
            if table.name not in but
        }


def forgotten(world: World, name: str = URI) -> Any:
    return forget(world.app, name, "ada", "asked by letter")


def test_no_byte_of_the_name_is_left(world: World, drop: Drop) -> None:
    event_id = of_jane(world, drop)
    assert [trace for trace in TRACES if trace in everything(world)] != []
    found = forgotten(world)
    assert found.rows.keys() >= {"event", "run", "delivery", "lineage_edge"}
    assert [trace for trace in TRACES if trace in everything(world)] == []
    item = world.store.events.get(event_id)
    assert item is not None
    assert item.event.subject == item.event.data["object"] == found.token
    assert item.event.data["size"] == 12
    (run,) = world.store.runs.of_event(event_id)
    assert (run.params["uri"], run.subject) == (found.token, found.token)
    assert run.params["model_version"] == 3
    assert found.reports == [run.report_uri]


def test_no_other_row_is_touched(world: World, drop: Drop) -> None:
    for key in ("incoming/jane-doe.csv.gz", "incoming/jane-doe.csv2", f"{KEY}x", "other/jane doe+1/b.csv"):
        finished(world, drop, key, eTag=key)
    before = rows(world)
    of_jane(world, drop)
    there = rows(world)
    forgotten(world)
    after = rows(world)
    for table, kept in before.items():
        assert set(map(repr, kept)) <= set(map(repr, after[table])), table
        assert len(there[table]) == len(after[table]), table


def test_lineage_leads_on_as_before(world: World, drop: Drop) -> None:
    from service.flow.origins import trace

    event_id = of_jane(world, drop)
    (run,) = world.store.runs.of_event(event_id)
    other = finished(world, drop, "incoming/labels.csv", eTag="other")
    (reader,) = world.store.runs.of_event(other)
    predictions = run.writes[0]
    assert "jane-doe" in predictions
    read = [
        Edge(source=node, relation="read", target=f"run:{reader.run_key}", run_key=reader.run_key)
        for node in (predictions, URI)
    ]
    world.store.lineage.add(read, world.clock.now())
    before = trace(world.store.lineage, f"run:{reader.run_key}")
    found = forgotten(world)
    after = trace(world.store.lineage, f"run:{reader.run_key}")
    assert [len(after[way]) for way in ("upstream", "downstream")] == [
        len(before[way]) for way in ("upstream", "downstream")
    ]
    assert [edge["relation"] for edge in after["upstream"]] == [edge["relation"] for edge in before["upstream"]]
    assert found.token in {edge["source"] for edge in after["upstream"]}
    assert f"event:{event_id}" in {edge["target"] for edge in trace(world.store.lineage, found.token)["downstream"]}
    assert "jane" not in repr(after)


def test_what_another_run_says_of_it_goes_too(world: World, drop: Drop) -> None:
    of_jane(world, drop)
    other = finished(world, drop, "incoming/labels.csv", eTag="other")
    (run,) = world.store.runs.of_event(other)
    with world.store.database.write() as connection:
        from sqlalchemy import update

        from service.store.tables import run as table

        told = {"params": {"files": [URI, f"{URI}2"], "uri": "incoming/jane-doe"}}
        connection.execute(update(table).where(table.c.run_key == run.run_key).values(**told))
    found = forgotten(world)
    after = world.store.runs.get(run.run_key)
    assert after is not None
    assert after.params == {"files": [found.token, f"{URI}2"], "uri": "incoming/jane-doe"}


def test_a_redelivery_is_known_and_runs_nothing(world: World, drop: Drop) -> None:
    event_id = of_jane(world, drop)
    forgotten(world)
    assert drop(KEY, request=KEY, userMetadata={"X-Amz-Meta-Note": "secret-of-jane"}) == event_id
    assert drop(KEY, request="another") == event_id
    world.answer()
    assert len(world.store.runs.list(Query())) == 1


def test_the_same_name_is_the_same_hash_in_this_store_and_in_no_other(world: World, tmp_path: Path) -> None:
    from world import made

    here = world.store.forgetting.token(URI)
    assert here == world.store.forgetting.token(URI) != world.store.forgetting.token(URI + "x")
    (tmp_path / "other").mkdir()
    with made(tmp_path / "other") as other:
        assert other.store.forgetting.token(URI) != here


def test_what_is_under_way_is_left_alone(world: World, drop: Drop) -> None:
    event_id = drop(KEY)
    with pytest.raises(Permanent, match=f"not now: event {event_id} waits to be decided"):
        forgotten(world)
    world.backend.before_create = Temporary("busy", nothing_happened=True)
    world.answer()
    with pytest.raises(Permanent, match="is ready; wait for it, or end it by `kfp-triggers runs cancel KEY`"):
        forgotten(world)
    world.later(60)
    with pytest.raises(Permanent, match=r"run \w+ is (submitted|running)"):
        forgotten(world)
    assert world.store.events.get(event_id).event.subject == URI  # type: ignore[union-attr]
    world.backend.end()
    world.later(60)
    assert forgotten(world).rows["run"] == 1


def test_what_is_forgotten_is_not_made_anew(world: World, drop: Drop) -> None:
    event_id = of_jane(world, drop)
    forgotten(world)
    (run,) = world.store.runs.of_event(event_id)
    with pytest.raises(Permanent, match="is forgotten"):
        retry.anew(world.app, run)


def test_an_alert_is_forgotten_by_its_subject(world: World) -> None:
    from triggers.event import Delivery, Event, Reading, key_of

    now = world.clock.now()
    data = {"fingerprint": "f1e2", "labels": {"alertname": "Drift"}, "starts_at": "2026-11-21T07:00:00Z"}
    alert = Event(type="alert.firing", subject="f1e2", time=now, data=data, identity=key_of("f1e2"))
    delivery = Delivery(source="drift", headers={}, body=b'{"fingerprint": "f1e2"}', received_at=now)
    from service.ledger import Arrival

    told = Arrival(delivery=delivery, headers={}, reading=Reading(transport_key="t", events=(alert,)))
    (event_id,) = world.store.events.accept(told).event_ids
    repeat = dataclasses.replace(told, reading=dataclasses.replace(told.reading, transport_key="t2"))
    assert world.store.events.accept(repeat).event_ids == [event_id]
    from service.flow.decide import decide

    decide(world.app, event_id)
    found = forgotten(world, "f1e2")
    assert found.rows == {"delivery": 2, "event": 1}
    assert b"f1e2" not in everything(world)


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> Shell:
    world.clock.at = datetime.now(UTC)
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    return Shell()


def test_it_says_what_it_changed_and_later_when(shell: Shell, world: World, drop: Drop) -> None:
    of_jane(world, drop)
    said = shell.run("forget", "--object", URI, "--by", "ada").out
    assert "it is forgotten:" in said
    assert "1 delivery" in said
    assert "not the store's to change: s3://kfp-triggers/reports/" in said
    assert "it was forgotten" in shell.run("forget", "--object", URI).out
    found = shell.json("forget", "--object", URI)
    assert (found["rows"], len(found["forgotten_at"])) == ({}, 1)
    assert world.store.dead.notes("subject", found["token"])[0].by == "ada"


def test_what_nobody_named_is_1(shell: Shell, world: World) -> None:
    assert "nothing in the store names it" in shell.run("forget", "--subject", "nobody", status=1).err
    assert "give --object URI or --subject NAME" in shell.run("forget", status=2).err
    assert "give --object" in shell.run("forget", "--object", URI, "--subject", "x", status=2).err
