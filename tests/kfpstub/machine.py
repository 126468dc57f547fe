"""The parts of one stub, and what they are set to. Made by `server`, handed to every handler."""

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from kfpstub.stamps import Clock
from kfpstub.store import Row, Store

ANY_SCRIPT: Row = {
    "match": "", "pipeline": "", "outcome": "succeed", "retry": "succeed", "task": "", "outputs": {}, "times": -1,
    "quiet_cancel": False,
    "message": "main: Error (exit code 1)",
}  # fmt: skip


@dataclass
class Settings:
    """What the command line and `POST /_stub/config` set. Seconds, where a time is meant."""

    pending: float = 0.2
    running: float = 0.5
    canceling: float = 0.2
    qps: float = 0.0
    burst: int = 10
    over: str = "wait"
    charset: str = "utf8"
    multi_user: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request, read. `bend` is what faults do to the way it is served."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    bend: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What goes back; a body that is neither bytes nor text is shown as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class Bucket:
    """The Kubernetes client's token bucket: creations beyond it wait, or are refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: float | None = None
        self._at = 0.0

    def wait(self, qps: float, burst: int) -> float:
        """Takes a token; how many seconds it is from now."""
        with self._lock:
            now = time.monotonic()
            held = burst if self._tokens is None else min(burst, self._tokens + (now - self._at) * qps)
            self._tokens, self._at = held - 1, now
            return max(0.0, -self._tokens / qps)

    def give_back(self) -> None:
        """For a creation that was refused instead of waiting."""
        with self._lock:
            self._tokens = (self._tokens or 0) + 1

    def reset(self) -> None:
        """Full again."""
        with self._lock:
            self._tokens = None


class Counts:
    """How often what was asked for. What was made is counted from the store's executions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: dict[str, Counter[str]] = defaultdict(Counter)
        self.statuses: Counter[str] = Counter()

    def request(self, pattern: str) -> None:
        """One of these, in this minute."""
        with self._lock:
            self.requests[pattern][time.strftime("%Y-%m-%dT%H:%M", time.gmtime())] += 1

    def answered(self, status: int) -> None:
        """By status: 401s are counted so."""
        with self._lock:
            self.statuses[str(status)] += 1

    def shown(self) -> Row:
        """A copy."""
        with self._lock:
            requests = {
                key: {"total": sum(one.values()), "per_minute": dict(one)} for key, one in self.requests.items()
            }
            return {"requests": requests, "statuses": dict(self.statuses)}

    def reset(self) -> None:
        """From nothing."""
        with self._lock:
            self.requests.clear()
            self.statuses.clear()


@dataclass
class Machine:
    """All of it."""

    store: Store
    settings: Settings
    clock: Clock = field(default_factory=Clock)
    counts: Counts = field(default_factory=Counts)
    bucket: Bucket = field(default_factory=Bucket)
    scripts: list[Row] = field(default_factory=list)
    faults: list[Row] = field(default_factory=list)

    def script_for(self, name: str, pipeline: str) -> Row:
        """The newest script that fits, with every gap filled; one that is used up is passed over."""
        filled = {
            "pending": self.settings.pending,
            "running": self.settings.running,
            "canceling": self.settings.canceling,
        }
        with self.store.lock:
            for script in reversed(self.scripts):
                if script["times"] and script["match"] in name and script["pipeline"] in {"", pipeline}:
                    script["times"] -= 1
                    return ANY_SCRIPT | filled | script
        return ANY_SCRIPT | filled
