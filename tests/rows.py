"""What a store is given in tests: arrivals, claims, decided runs; and what is counted in it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from ulid import ULID

from service.ledger import Arrival, Ask, Claim, Judged
from service.lifecycle import State
from service.records import Promotion, PromotionState, RunRecord
from service.store import Store
from triggers.event import Delivery, Event, Reading, key_of
from triggers.reason import Reason
from triggers.rules.gate import History

NOW = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)


def object_event(key: str = "a.csv") -> Event:
    uri = f"s3://user-ids/{key}"
    return Event(type="object.created", subject=uri, time=NOW, data={"object": uri}, identity=key_of(uri))


def arrival(*events: Event, transport: str = "t1", body: bytes = b"\xff\x00{}") -> Arrival:
    delivery = Delivery(source="uploads", headers={}, body=body, received_at=NOW)
    return Arrival(delivery=delivery, headers={}, reading=Reading(transport_key=key_of(transport), events=events))


def push(sha: str) -> Event:
    return Event(
        type="git.push", subject="r@main", time=NOW, data={"sha": sha}, stream="r@refs/heads/main", position=sha
    )


def claim(now: datetime = NOW, seconds: float = 30, holder: str = "me") -> Claim:
    return Claim(holder=holder, now=now, until=now + timedelta(seconds=seconds))


def a_run(event_id: str, key: str, *, lock: str = "", lock_max: int = 1) -> RunRecord:
    return RunRecord(
        id="",
        run_key=key,
        decision_id="",
        event_id=event_id,
        rule="r",
        generation=0,
        state=State.WAITING if lock else State.READY,
        reason=Reason.DECIDED,
        detail="",
        backend="default",
        backend_id="",
        pipeline="p",
        pipeline_version="v1",
        pipeline_digest="d",
        experiment="",
        params={"n": 1},
        reads=[],
        writes=["s3://out/x"],
        causes=["r"],
        as_of="",
        lock=lock,
        lock_max=lock_max,
        time_limit=60,
        display_name="",
        description="",
        report_uri="",
        created_at=NOW,
    )


def decided(store: Store, event_id: str, key: str, **lock: object) -> None:
    def judge(_history: History) -> Judged:
        run = a_run(event_id, key, **lock)  # type: ignore[arg-type]
        return Judged(rule="r", outcome="run", reason=Reason.MATCHED, detail="", rule_hash="", rule_set="", run=run)

    item = store.events.claim(event_id, claim())
    assert item is not None
    ask = Ask(rule="r", lock=str(lock.get("lock", "")), causes=(), judge=judge)
    assert store.decisions.settle(item, [ask], holder="me", now=NOW)


def one_event(store: Store, key: str = "a.csv") -> str:
    return store.events.accept(arrival(object_event(key), transport=key)).event_ids[0]


def promotion(to: int, run_key: str = "") -> Promotion:
    return Promotion(
        id=str(ULID()),
        model="m",
        alias="champion",
        from_version=1,
        to_version=to,
        action="promote",
        state=PromotionState.MOVING,
        reason=Reason.APPROVED,
        detail="",
        by="me",
        run_key=run_key,
        figures={},
        created_at=NOW,
    )


def count(store: Store, table: Any) -> int:
    with store.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0
