"""What happened, as the service itself tells it over its read API: files, drift, alerts, retrainings, promotions.

Made by `loop` after the last week, shown by `picture`, held against its bounds by `verdict`. Plain values, so that the
tests of those two need no stack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oracle import Compared
from play import MODEL, RETRAIN, SCORE, Stage
from scene import Failed
from weeks import World, ids_key, labels_key


@dataclass(frozen=True)
class Week:
    """One file."""

    number: int
    version: int  #: of the model that scored it
    psi: float  #: of the feature that has moved most from that version's training; the scores count as one
    feature: str
    accuracy: float  #: once the labels came


@dataclass(frozen=True)
class Happening:
    """Something that the alert of a week led to."""

    week: int  #: the newest that was scored by then
    kind: str  #: alert, held, retrain, promoted, refused
    text: str


@dataclass(frozen=True)
class Chronicle:
    """The whole of it, with what it is measured against."""

    world: World
    weeks: Sequence[Week]
    happenings: Sequence[Happening]
    compared: Compared

    @property
    def retrains(self) -> int:
        """Trainings after the first one."""
        return sum(one.kind == "retrain" for one in self.happenings)


def chronicle(stage: Stage, compared: Compared) -> Chronicle:
    """Ask the service for everything."""
    weeks = _weeks(stage)
    return Chronicle(stage.world, weeks, _happenings(stage), compared)


def _weeks(stage: Stage) -> list[Week]:
    demo = stage.demo
    scored = {run["params"]["entity_df_filename"]: run for run in demo.get("runs", rule=SCORE, limit=200)["items"]}
    drifts = {one["run_key"]: one for one in _observed(stage, "drift")}
    qualities = {one["subject"].rpartition("/income/")[2]: one for one in _observed(stage, "quality")}
    found = []
    for number in range(1, stage.world.weeks + 1):
        drift = drifts[scored[ids_key(number)]["run_key"]]
        quality = qualities[labels_key(number).rpartition("/")[2]]
        columns = drift["figures"]["columns"]
        feature = max(columns, key=lambda name: columns[name]["psi"])
        accuracy = quality["figures"]["measures"]["accuracy"]
        if abs(accuracy - stage.accuracy[number]) > 1e-9:
            raise Failed(f"week {number}: the service says {accuracy}, the file says {stage.accuracy[number]}")
        found.append(Week(number, drift["version"], columns[feature]["psi"], feature, accuracy))
    return found


def _observed(stage: Stage, kind: str) -> list[Mapping[str, Any]]:
    return list(stage.demo.get("observations", model=MODEL, kind=kind, limit=200)["items"])


def _happenings(stage: Stage) -> list[Happening]:
    """In the order of time."""
    demo = stage.demo
    ends = sorted(_moment(run["ended_at"]) for run in demo.get("runs", rule=SCORE, limit=200)["items"])
    found: list[tuple[datetime, str, str]] = []
    outcomes = {one["event_id"]: one for one in demo.get("decisions", rule=RETRAIN, limit=200)["items"]}
    for event in demo.get("events", source="drift", limit=200)["items"]:
        if event["type"] == "alert.firing" and (decision := outcomes.get(event["id"])):
            ran = decision["outcome"] == "run"
            text = _named(event) if ran else f"{_named(event)}: {decision['reason']}"
            found.append((_moment(event["data"]["starts_at"]), "alert" if ran else "held", text))
    trained = demo.get("runs", rule=RETRAIN, limit=200)["items"]
    found += [(_moment(run["created_at"]), "retrain", run["params"]["reason"]) for run in trained]
    for move in demo.get("promotions", limit=200)["items"]:
        if move["run_key"] and move["from_version"]:
            kind = "promoted" if move["state"] == "done" else "refused"
            text = f"version {move['to_version']} {kind} (champion was {move['from_version']})"
            found.append((_moment(move["ended_at"] or move["created_at"]), kind, text))
    return [Happening(sum(end <= at for end in ends), kind, text) for at, kind, text in sorted(found)]


def _named(event: Mapping[str, Any]) -> str:
    labels = event["data"]["labels"]
    name = " ".join(labels[name] for name in ("alertname", "feature") if name in labels)
    return f"{name}, asked again" if "repeat" in event["data"] else name


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
