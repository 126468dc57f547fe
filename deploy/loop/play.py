"""The weeks, played on the stack: what a data team's senders do, and when the next of it may come.

A week is a file of ids whose features are there already, and its labels once the file has been scored. Two weeks may be
under way, so that both cores have work; and the clock stands while an alert is pending and while a retraining runs,
which in a real week would take a few minutes. Called by `loop`; what came of it `account` asks the service.
"""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
from data import parquet
from scene import Demo, Failed, push
from weeks import FEATURE_STORE, INCOMING, LABELS, World, features_key, ids_key, labels_key

from service.buckets import client

MODEL = "income-classifier"
SCORE, LEARN, RETRAIN, PUSHED = "score-week", "learn-how-good", "retrain-on-alert", "retrain-on-push"
INTERVAL = 1.0  #: seconds between two looks of Prometheus
LEARNED = timedelta(seconds=1)  #: from a look at people to what they turned out to earn


@dataclass
class Stage:
    """The stack and the world on it."""

    demo: Demo
    world: World
    begun: dict[str, int] = field(default_factory=dict)  #: week by its file
    seen: dict[int, datetime] = field(default_factory=dict)  #: when a week's people were
    scored: dict[int, Mapping[str, Any]] = field(default_factory=dict)  #: the run by week
    accuracy: dict[int, float] = field(default_factory=dict)  #: by week, of the predictions as they lie in the bucket

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """An object, as somebody else would put it."""
        client(self.demo.s3).put_object(bucket, key, io.BytesIO(content), len(content))

    def begin(self, week: int) -> None:
        """The features of a week's people, then the file that asks for them."""
        self.seen[week] = datetime.now(UTC)
        self.put(FEATURE_STORE, features_key(week), parquet(self.world.features(week, self.seen[week])))
        self.begun[ids_key(week)] = week
        self.put(INCOMING, ids_key(week), self.world.ids(week))

    def end(self, week: int) -> Mapping[str, Any]:
        """Wait until it is scored and its labels have come; the run."""
        return self.demo.until(lambda: self.land().get(week), f"week {week}'s predictions")

    def land(self) -> Mapping[int, Mapping[str, Any]]:
        """Let the labels come of every week that is scored by now; the runs that scored them, by week.

        Asked at each look, whatever is waited for: an alert must not find a week that is scored without its labels. By
        their time the weeks stay in order, also where the second is scored first: a training holds out the newest.
        """
        for run in self.demo.runs(SCORE):
            week = self.begun[run["params"]["entity_df_filename"]]
            if week not in self.scored and (run["recorded_at"] or run["state"] == "dead"):
                if run["state"] != "succeeded":
                    raise Failed(f"week {week}: run {run['run_key']} {run['state']}: {run['error']}")
                self.put(LABELS, labels_key(week), parquet(self.world.labels(week, self.seen[week] + LEARNED)))
                self.accuracy[week] = self._measured(week, run)
                self.scored[week] = run
        return self.scored

    def learned(self, week: int) -> Mapping[str, Any] | None:
        """The run that held a week's labels against its predictions, once it is recorded."""
        self.land()
        for run in self.demo.runs(LEARN):
            if run["params"]["labels_uri"].endswith(labels_key(week)):
                if run["state"] in ("failed", "dead", "cancelled"):
                    raise Failed(f"run {run['run_key']} of {LEARN} {run['state']}: {run['error']}")
                return run if run["recorded_at"] else None
        return None

    def _measured(self, week: int, run: Mapping[str, Any]) -> float:
        """Counted here, by hand as it were; the service's own figure comes later and must be the same."""
        stored = client(self.demo.s3).get_object("predictions", run["params"]["output_file_name"]).read()
        found = pq.read_table(io.BytesIO(stored)).column("Predicted_Income_Class").to_pylist()
        true = self.world.people(week)["income"].tolist()
        return sum(one == other for one, other in zip(found, true, strict=True)) / len(true)

    def settle(self, week: int) -> None:
        """Wait until all that can be known of a week is, and until what came of it is over."""
        run = self.demo.until(lambda: self.learned(week), f"what the labels of week {week} say")
        since = datetime.fromisoformat(run["recorded_at"]).timestamp() - INTERVAL
        wanted = f'kfp_triggers_observed_at_seconds{{model="{MODEL}",kind="quality"}} >= {since:.3f}'
        self.demo.until(lambda: self._asked("query", query=wanted)["result"], "Prometheus' look at the week")
        time.sleep(1.5 * INTERVAL)  # for the rules, which it evaluates as often as it looks
        self.demo.until(lambda: not self._unrest(), "the end of what an alert began", lambda: f": {self._unrest()}")

    def _unrest(self) -> str:
        """Why the next week may not come yet: an alert pending or not decided about, or a retraining under way."""
        self.land()
        alerts = [one for one in self._asked("alerts")["alerts"] if one["labels"].get("model") == MODEL]
        if waiting := [one for one in alerts if one["state"] == "pending"]:
            return f"pending {waiting}"
        told = self.decided_alerts()
        never = datetime.min.replace(tzinfo=UTC)
        if untold := [one for one in alerts if told.get(labels_of(one), never) < _began(one)]:
            return f"not decided about {untold}, but about {told}"
        return ", ".join(f"{run['run_key']} {run['state']}" for run in self.demo.runs(RETRAIN) if not self._over(run))

    def _over(self, run: Mapping[str, Any]) -> bool:
        """Whether a retraining has ended and its candidate has been promoted or not."""
        if run["state"] == "succeeded" and run["recorded_at"]:
            moves = [one for one in self.demo.get("promotions", limit=100)["items"] if one["run_key"] == run["run_key"]]
            return bool(moves) and all(one["state"] not in ("asked", "moving") for one in moves)
        if run["state"] in ("failed", "dead", "cancelled"):
            raise Failed(f"run {run['run_key']} of {RETRAIN} {run['state']}: {run['error']}")
        return False

    def decided_alerts(self) -> Mapping[tuple[tuple[str, str], ...], datetime]:
        """By labels, since when the newest alert fired that the service has decided about."""
        found: dict[tuple[tuple[str, str], ...], datetime] = {}
        for event in self.demo.get("events", source="drift", limit=200)["items"]:
            if event["type"] == "alert.firing" and event["state"] != "accepted":
                data = event["data"]
                began = datetime.fromisoformat(data["starts_at"])
                found[labels_of(data)] = max(began, found.get(labels_of(data), began))
        return found

    def _asked(self, what: str, **params: str) -> Any:
        """Prometheus' answer."""
        answer = (
            self.demo.http.get(f"{self.demo.stack.prometheus}/api/v1/{what}", params=params).raise_for_status().json()
        )
        return answer["data"]


def labels_of(alert: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What makes it this alert and no other."""
    return tuple(sorted(alert["labels"].items()))


def _began(alert: Mapping[str, Any]) -> datetime:
    """Of an alert of Prometheus, in the milliseconds that Alertmanager tells; it fires no earlier."""
    began = datetime.fromisoformat(alert["activeAt"])
    return began.replace(microsecond=began.microsecond // 1000 * 1000)


def first_training(stage: Stage) -> Mapping[str, Any]:
    """The model's code is pushed, and the first champion is trained on week 0."""
    push(stage.demo, "v1", "Logistic regression")
    return stage.demo.finished(PUSHED, 1)


def play(stage: Stage, tell: Callable[[int, Mapping[str, Any]], None]) -> None:
    """All weeks; `tell` is given each with its run when it is over."""
    for week in _two_at_a_time(stage):
        run = stage.end(week)
        stage.settle(week)
        tell(week, run)


def _two_at_a_time(stage: Stage) -> Iterator[int]:
    """Each week to be ended, the next one begun before it."""
    stage.begin(1)
    for week in range(1, stage.world.weeks + 1):
        if week < stage.world.weeks:
            stage.begin(week + 1)
        yield week
