"""Replays recordings of a real server against a stub, and says where the two differ. For service/test_kfp_stub.py.

The stub lives by the recorded clock (the latest time that an answer has shown so far), so that what was PENDING,
RUNNING or finished then is so now; how a run goes is scripted by its name. Ids and tokens are the stub's own,
and are mapped.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from kfpstub.stamps import seconds_of

RECORDINGS = Path(__file__).parents[1] / "recordings"
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CUT = re.compile(r"<CUT: string of (\d+) chars, starts '(.)")
WORKFLOW = re.compile(r"typed-[a-z0-9]{5}")
ITEMS = {"runs": "run_id", "pipelines": "pipeline_id", "pipeline_versions": "pipeline_version_id", "experiments": ""}
TERMINAL = {"SUCCEEDED", "FAILED"}

# Seconds as the recorded server took them, roughly; how runs went that are called so.
PACE = {"pending": 3, "running": 9, "canceling": 2}
SCRIPTS = (
    {"match": "okpoll", "pending": 1, "running": 10},
    {"match": "fail", "outcome": "fail", "task": "step1", "pending": 1, "running": 6},
    {"match": "hang", "outcome": "run", "retry": "run"},
    {"match": "evt", "outcome": "hang"},
    {"match": "a%b-", "quiet_cancel": True},
    {"match": "é-", "quiet_cancel": True},
    {"match": "a_b-", "quiet_cancel": True},
)
# The recorder terminated these two seconds after it made them, without recording that.
TERMINATED = ("param type:", "display_name with special characters")


@dataclass(frozen=True)
class Exchange:
    """One line of a recording."""

    file: str
    line: int
    said: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.said['method']} {self.said['path']} ({self.said['note']})"


def recorded(name: str) -> list[Exchange]:
    """All exchanges of a file, in order; lines count from 1."""
    lines = (RECORDINGS / name).read_text(encoding="utf-8").splitlines()
    return [Exchange(name, at, json.loads(line)) for at, line in enumerate(lines, 1)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value


class Replay:
    """One recording against one stub."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.own: dict[str, str] = {}
        self.chance: set[str] = set()  # ids that the server picked among several of one second
        self.now = 0.0
        self.doomed: list[tuple[float, str]] = []
        self._control("config", PACE)
        self._control("script", list(SCRIPTS))

    def begun(self, first: Exchange, runs: int, pipelines: int) -> None:
        """The server was not empty when the recording began."""
        self.now = (
            min(seconds_of(text) for text in _strings(first.said["response"]) if TIME.fullmatch(text) and text > "2000")
            - 1000
        )
        self._control("clock", {"set": self.now})
        self._control("runs", {"count": runs, "name": "older"})
        for at in range(pipelines):
            self.http.post("/apis/v2beta1/pipelines", json={"display_name": f"older {at}"})

    def _control(self, what: str, body: Any) -> None:
        assert self.http.post(f"/_stub/{what}", json=body).status_code == 200

    def differences(self, exchange: Exchange, headers: dict[str, str]) -> list[str]:
        """Sends it; what the stub answers otherwise than the real server did."""
        said = exchange.said
        self._time_passes(said)
        self._control("config", {"charset": "latin1" if "DB latin1" in said["note"] else "utf8"})
        answer = self._sent(said, headers)
        if answer.status_code != said["status"]:
            return [f"{exchange}: {answer.status_code}, not {said['status']}: {answer.text[:300]}"]
        found = answer.json()
        if said["method"] == "POST" and said["status"] == 200:
            self._learn(said, found)
        wanted = self._mapped(said["response"])
        self._learn_token(said["response"], found)
        differing = list(Comparison(said["query"] or {}, set(self.own.values()) - self.chance).of(wanted, found, ""))
        kind = answer.headers["content-type"]
        if kind != said["content_type"]:
            differing.append(f"content type {kind}, not {said['content_type']}")
        return [f"{exchange}: {one}" for one in differing]

    def _time_passes(self, said: dict[str, Any]) -> None:
        """To the latest time shown; for a creation, to its own, which may be a second before its state was noted."""
        response = said["response"]
        shown = [seconds_of(text) for text in _strings(response) if TIME.fullmatch(text)]
        made = said["method"] == "POST" and "created_at" in response
        self.now = seconds_of(response["created_at"]) if made else max([self.now, *shown])
        for at, run_id in [one for one in self.doomed if one[0] <= self.now]:
            self._control("clock", {"set": at})
            self.http.post(f"/apis/v2beta1/runs/{run_id}:terminate")
            self.doomed.remove((at, run_id))
        self._control("clock", {"set": self.now})

    def _sent(self, said: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        path, query, body = self._mapped(said["path"]), self._mapped(said["query"] or {}), said["request"]
        if isinstance(body, dict) and "multipart" in body:
            files = [
                (part["field"], (part["filename"], part["text"].encode(), part["content_type"]))
                for part in body["multipart"]
            ]
            return self.http.post(path, params=query, files=files, headers=headers)
        content = None if body is None else json.dumps(_whole(self._mapped(body)))
        headers = headers | {"content-type": "application/json"}
        return self.http.request(said["method"], path, params=query, content=content, headers=headers)

    def _learn(self, said: dict[str, Any], found: dict[str, Any]) -> None:
        for name, value in said["response"].items():
            if name.endswith("_id"):
                self.own.setdefault(value, found[name])
        referred = [side.get("pipeline_version_reference", {}) for side in (said["response"], found)]
        if referred[0] and self.own[referred[0]["pipeline_version_id"]] != referred[1]["pipeline_version_id"]:
            self.chance.add(self.own[referred[0]["pipeline_version_id"]])
        if said["note"].startswith(TERMINATED):
            self.doomed.append((self.now + 2, found["run_id"]))

    def _learn_token(self, response: Any, found: Any) -> None:
        if isinstance(response, dict) and "next_page_token" in response and "next_page_token" in found:
            self.own[response["next_page_token"]] = found["next_page_token"]

    def _mapped(self, value: Any) -> Any:
        """With the stub's ids and tokens for the recorded ones."""
        if isinstance(value, dict):
            return {name: self._mapped(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._mapped(one) for one in value]
        if not isinstance(value, str) or value in self.own:
            return self.own.get(value, value) if isinstance(value, str) else value
        return UUID.sub(lambda id_: self.own.get(id_[0], id_[0]), value)


def _whole(value: Any) -> Any:
    """Strings that the recording cut, long again."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    cut = CUT.match(value) if isinstance(value, str) else None
    return cut[2] * int(cut[1]) if cut else value


@dataclass(frozen=True)
class Comparison:
    """Of one answer. Values are compared; of what cannot be the same (new ids, times, stacks), the type."""

    query: dict[str, str]
    ours: set[str]

    def of(self, wanted: Any, found: Any, where: str) -> Iterator[str]:
        """What differs, as sentences."""
        name = where.rsplit(".", 1)[-1]
        if type(wanted) is not type(found):
            yield f"{where} is {found!r:.200}, not {wanted!r:.200}"
        elif name in {"error_details", "next_page_token", "workflow_manifest", "pipeline_manifest"}:
            return
        elif name == "task_details":
            yield from _tasks(wanted, found)
        elif name == "state_history":
            states = [[one.get("state") for one in side] for side in (wanted, found)]
            if states[0] != states[1]:
                yield f"{where} is {states[1]}, not {states[0]}"
        elif name in ITEMS and isinstance(wanted, list):
            yield from self._items(wanted, found, where)
        elif isinstance(wanted, dict):
            yield from self._fields(wanted, found, where)
        elif isinstance(wanted, list):
            if len(wanted) != len(found):
                yield f"{where} has {len(found)} elements, not {len(wanted)}"
            for at, (one, other) in enumerate(zip(wanted, found, strict=False)):
                yield from self.of(one, other, f"{where}[{at}]")
        elif not self._same(wanted, found, name):
            yield f"{where} is {found!r:.400}, not {wanted!r:.400}"

    def _fields(self, wanted: dict[str, Any], found: dict[str, Any], where: str) -> Iterator[str]:
        if set(wanted) != set(found):
            yield f"{where} lacks {sorted(set(wanted) - set(found))}, has besides {sorted(set(found) - set(wanted))}"
        foreign = any(self._foreign(wanted[name], key) for name, key in ITEMS.items() if name in wanted)
        for name in set(wanted) & set(found):
            if name != "total_size" or not foreign:
                yield from self.of(wanted[name], found[name], f"{where}.{name}")

    def _same(self, wanted: Any, found: Any, name: str) -> bool:
        if not isinstance(wanted, str):
            return bool(wanted == found)
        if TIME.fullmatch(wanted) and TIME.fullmatch(found):
            never = ("1970", "0001")
            return wanted == found if name == "created_at" or wanted.startswith(never) else not found.startswith(never)
        if UUID.fullmatch(wanted) and wanted not in self.ours:
            return UUID.fullmatch(found) is not None
        cut = CUT.match(wanted)
        if cut:
            return bool(len(found) == int(cut[1]) and found[0] == cut[2])
        return bool(wanted.replace("\u00a0", " ") == found)  # protobuf puts either blank into its messages, at random

    def _foreign(self, items: list[Any], key: str) -> bool:
        """Whether the real server listed rows that were there before the recording began."""
        return key != "pipeline_version_id" and any(key and one[key] not in self.ours for one in items)

    def _items(self, wanted: list[Any], found: list[Any], where: str) -> Iterator[str]:
        key = ITEMS[where.rsplit(".", 1)[-1]]
        if self._foreign(wanted, key) or not key:
            keys = {name for one in wanted for name in one}
            yield from (f"{where} holds {set(one) - keys} besides" for one in found if set(one) - keys)
            return
        if len(wanted) != len(found):
            yield f"{where} has {len(found)} items, not {len(wanted)}"
        mine = {one[key]: one for one in found}
        cut = "page_size" in self.query or "page_token" in self.query  # where a page ends within a second is chance
        sort = (self.query.get("sort_by") or "created_at").split()[0]
        shown = {"finished_at": "display_name"}.get(sort, sort)
        order = [[one.get(shown) for one in side] for side in (wanted, found)]
        if sort == "run_id":  # the ids are each server's own: what is first among them is chance
            order[0] = sorted(order[1])
        if order[0] != order[1]:
            yield f"{where} is sorted {order[1]}, not {order[0]}"
        for one in wanted:
            if one[key] in mine:
                yield from self.of(one, mine[one[key]], f"{where}[{one['display_name']}]")
            elif not cut and one[key] in self.ours:
                yield f"{where} lacks {one['display_name']}"


def _tasks(wanted: list[Any], found: list[Any]) -> Iterator[str]:
    """The same tasks in the same states, when nobody stopped the run; always the same fields."""
    always = set.intersection(*(set(one) for one in wanted))
    known = {name for one in wanted for name in one}
    for one in found:
        if not always <= set(one) <= known:
            yield f"task {one['display_name']} has the fields {sorted(one)}, not {sorted(known)}"
    names = [
        sorted((WORKFLOW.sub("*", one["display_name"]), one.get("state", "")) for one in side)
        for side in (wanted, found)
    ]
    states = {state for _, state in names[0]}
    through = states == {"SUCCEEDED"} or ("executor", "FAILED") in names[0]
    if through and names[0] != names[1]:
        yield f"tasks are {names[1]}, not {names[0]}"
