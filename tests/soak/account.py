"""What came of a soak: the account by the service, by the server that executed, and by who was promised something.

Read past the service's own words, by SQL, and printed as a table. Used by `soak`.
"""

import json
import statistics
import time
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kfpserver import Stub
from senders import Senders
from sqlalchemy import func, select

from service.flow.reconcile import RECONCILE
from service.ports import App
from service.store.tables import decision, delivery, event, run, run_transition
from triggers.reason import Reason

DRAIN = 180.0  #: seconds without any run's end after which no more is expected
FLAT = 20.0  #: MiB that a process's memory may grow by
LEAST = {"events": 20_000 / 30, "kills": 200 / 30}  #: a minute; fewer prove too little
BROKEN = ("lost", "stuck", "twice", "unrecorded")
UNCLEAR = ("adopted", "absent")  #: of a run whose submission was answered late, or not at all


@dataclass(frozen=True)
class Found:
    """The figures; what is named is broken."""

    events: int
    by_type: Mapping[str, int]
    scanned: int  #: of the events, those that the scan told of first
    told: int  #: things that a sender was promised
    vain: int  #: tries of senders that were not answered 2xx
    runs: int
    resolved: int  #: alerts that ended before they were decided: a skip, with that reason
    kills: Mapping[str, int]
    lost: Sequence[str]  #: promised, and without a run; and what `verify` calls lost
    stuck: Sequence[str]
    twice: Sequence[str]  #: run keys that were executed twice, things with two runs, and what `verify` calls twice
    unrecorded: Sequence[str]
    slowest: float  #: seconds from an event's acceptance to its run's submission
    slowest_unclear: float  #: the same of runs whose submission's answer was lost: they wait for the settle time
    recovery: Mapping[str, float]  #: by part: seconds from its kill until something accepted after it was submitted
    memory: Mapping[str, Sequence[float]]  #: MiB after the warm-up: first and last quarter's median, and the most

    def broken(self, minutes: float) -> list[str]:
        """The promises that were, in words."""
        said = [f"{len(found)} {name}" for name in BROKEN if (found := getattr(self, name))]
        growth = {name: last - first for name, (first, last, _) in self.memory.items()}
        said += [f"{name} grew by {more:.1f} MiB" for name, more in growth.items() if more > FLAT]
        counts = {"events": self.events, "kills": sum(self.kills.values())}
        return said + [f"only {counts[name]} {name}" for name, least in LEAST.items() if counts[name] < least * minutes]


def drained(app: App, promised: Mapping[str, float]) -> None:
    """Wait until each thing has a run that ended and was recorded, or until nothing more comes of waiting."""
    recorded = select(func.count()).where(run.c.recorded_at.is_not(None))
    skipped = select(func.count()).where(decision.c.outcome == "skip")
    before, deadline = -1, time.monotonic() + DRAIN
    while time.monotonic() < deadline:
        states = app.ledger.account.gauges()
        with app.ledger.database.read() as connection:  # type: ignore[attr-defined]  # past the service's words
            done, skips = int(connection.scalar(recorded)), int(connection.scalar(skipped))
        over = sum(states["run"].values()) == done and not states["event"].get("accepted")
        if over and done + skips >= len(promised):
            return
        if done > before:
            before, deadline = done, time.monotonic() + DRAIN
        time.sleep(1)


@dataclass(frozen=True)
class _Rows:
    """What the store says."""

    runs: Sequence[Any]  #: run_key, params, received_at, submitted_at
    by_type: Mapping[str, int]
    scanned: int
    resolved: set[str]  #: words
    unclear: set[str]  #: run keys


def _rows(app: App) -> _Rows:
    runs = select(run.c.run_key, run.c.params, event.c.received_at, run.c.submitted_at)
    came = select(delivery.c.headers).join(event, event.c.delivery_id == delivery.c.id)
    skips = select(event.c.data).join(decision, decision.c.event_id == event.c.id)
    with app.ledger.database.read() as connection:  # type: ignore[attr-defined]  # past the service's words
        ended = connection.scalars(skips.where(decision.c.outcome == "skip", decision.c.reason == Reason.RESOLVED))
        headers = connection.scalars(came)
        types = connection.execute(select(event.c.type, func.count()).group_by(event.c.type).order_by(event.c.type))
        unclear = select(run_transition.c.run_key).where(run_transition.c.reason.in_(UNCLEAR))
        return _Rows(
            runs=connection.execute(runs.join(event, event.c.id == run.c.event_id)).all(),
            by_type={str(word): int(count) for word, count in types},
            scanned=sum(one.get("transport") == RECONCILE for one in headers),
            resolved={data["labels"]["number"] for data in ended},
            unclear=set(connection.scalars(unclear)),
        )


def found(
    app: App, stub: Stub, senders: Senders, kills: Sequence[tuple[float, str]], verified: Mapping[str, Any],
    memory: Mapping[str, Sequence[float]],
) -> Found:  # fmt: skip
    """The account of a play that has drained."""
    rows, executed = _rows(app), stub.counts()["executed_keys"]
    words = Counter(row.params["uri"] for row in rows.runs)
    missing = sorted(word for word in senders.promised if words[word] < 1 and word not in rows.resolved)
    twice = [key for counts in (executed, words) for key, count in sorted(counts.items()) if count > 1]
    submitted = [(row.received_at / 1e6, row.submitted_at / 1e6, row.run_key) for row in rows.runs if row.submitted_at]
    waits = {key: (end - start) for start, end, key in submitted}
    return Found(
        events=sum(rows.by_type.values()),
        by_type=rows.by_type,
        scanned=rows.scanned,
        told=len(senders.promised),
        vain=senders.tries,
        runs=len(rows.runs),
        resolved=len(rows.resolved),
        kills=dict(sorted(Counter(name for _, name in kills).items())),
        lost=missing + verified["lost"],
        stuck=verified["stuck"],
        twice=twice + verified["twice"],
        unrecorded=verified["unrecorded"],
        slowest=max((seconds for key, seconds in waits.items() if key not in rows.unclear), default=0.0),
        slowest_unclear=max((seconds for key, seconds in waits.items() if key in rows.unclear), default=0.0),
        recovery=_recovery([(start, end) for start, end, _ in submitted], kills),
        memory={name: _levels(sizes) for name, sizes in memory.items() if sizes},
    )


def _recovery(runs: Sequence[tuple[float, float]], kills: Sequence[tuple[float, str]]) -> dict[str, float]:
    """The slowest of each part. The next hundred accepted are looked at: the first may be the one that has to wait."""
    slowest, ordered = dict[str, float](), sorted(runs)
    for at, name in kills:
        after = ordered[(first := bisect(ordered, (at, 0.0))) : first + 100]
        if after:
            slowest[name] = max(slowest.get(name, 0.0), min(submitted for _, submitted in after) - at)
    return slowest


def _levels(sizes: Sequence[float]) -> tuple[float, float, float]:
    quarter = max(1, len(sizes) // 4)
    return statistics.median(sizes[:quarter]), statistics.median(sizes[-quarter:]), max(sizes)


def table(of: Found) -> str:
    """In Markdown."""
    names = {name: f"{len(getattr(of, name))} {' '.join(getattr(of, name)[:10])}".strip() for name in BROKEN}
    recovery = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(of.recovery.items()))
    rows = {
        "events": f"{of.events}: {_counts(of.by_type)}; {of.scanned} of them the scan told of first",
        "told by senders": f"{of.told}, and {of.vain} tries in vain",
        "runs": f"{of.runs}; {of.resolved} alerts ended before they were decided",
        "kills": f"{sum(of.kills.values())}: {_counts(of.kills)}",
        **names,
        "slowest submission": f"{of.slowest:.1f} s; where its answer was lost {of.slowest_unclear:.1f} s",
        "slowest recovery": f"{max(of.recovery.values(), default=0.0):.1f} s ({recovery})",
        **{
            f"memory of {name}": f"{a:.0f} → {b:.0f} MiB, at most {most:.0f}"
            for name, (a, b, most) in of.memory.items()
        },
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in of.items())


def as_json(of: Found, **more: Any) -> str:
    """One document."""
    return json.dumps({**more, **asdict(of)}, indent=2)
