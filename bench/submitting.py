"""What the service adds to a bare CreateRun, and what a burst of events comes to. Called by `kubeflow`."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from kfpserver import RUNS, Stub, kfp_stub
from kfpworld import Place, decide, drop, made
from openruns import DEFAULTS, PATIENCE

from service.duties import Duties
from service.flow.steps import step
from service.ports import App
from service.settings import PaceSettings

KEYS = 200  #: objects of a burst
LIMIT = 100.0  #: runs a second, of the server


@dataclass(frozen=True)
class Overhead:
    """Medians, in milliseconds."""

    bare: float
    submit: float
    whole: float
    synced: float


@dataclass(frozen=True)
class Asked:
    """The settings that a burst is met with."""

    rate: float
    burst: int
    sweep: float


QUICK = Asked(90.0, 5, 0.1)  #: as the tests have it
DEFAULT = Asked(DEFAULTS["rate"], int(DEFAULTS["burst"]), PaceSettings().sweep)


@dataclass(frozen=True)
class Burst:
    """What it came to."""

    events: int
    asked: Asked
    stored: float  #: seconds
    submitted: float
    errors: int
    per_key: tuple[int, int]  #: creations under one run key, at least and at most

    @property
    def at_best(self) -> float:
        """Seconds, were nothing ever waited for but the rate."""
        return (self.events - self.asked.burst) / self.asked.rate


def overhead(folder: Path, count: int) -> Overhead:
    """So many of each, in turn: a bare POST, a run through the flow, 512 bytes brought to the disk."""
    folder.mkdir()
    with kfp_stub(folder) as stub:
        place = made(folder, stub, {}, **DEFAULTS | {"rate": 1000.0, "burst": 1000})
        place.push()
        with place.opened() as app, (folder / "synced").open("ab", buffering=0) as file:
            _through(app, "first.csv")
            body = _likeness(stub)
            rounds = [
                (
                    _timed(partial(stub.http.post, RUNS, json=body | {"display_name": f"bare {at}"})),
                    *_through(app, f"{at}.csv"),
                    _timed(partial(_to_the_disk, file)),
                )
                for at in range(count + 3)
            ]
    return Overhead(*(1000 * statistics.median(one) for one in zip(*rounds[3:], strict=True)))


def _likeness(stub: Stub) -> dict[str, Any]:
    """The body of the run that was made, for any client to send."""
    (made_,) = stub.listed()
    return {name: made_[name] for name in ("pipeline_version_reference", "runtime_config", "experiment_id")}


def _through(app: App, key: str) -> tuple[float, float]:
    """Seconds of the submission alone, and from the notification on."""
    began = time.perf_counter()
    event_id = drop(app, key)
    decide(app, event_id)
    (item,) = app.ledger.runs.of_event(event_id)
    submit = _timed(lambda: step(app, "runs.submit", item.run_key))
    whole = time.perf_counter() - began
    if not app.ledger.runs.of_event(event_id)[0].backend_id:
        raise RuntimeError(f"{key} was not submitted at once")
    return submit, whole


def _to_the_disk(file: FileIO) -> None:
    file.write(bytes(512))
    os.fdatasync(file.fileno())


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def burst(folder: Path, events: int, asked: Asked) -> Burst:
    """All at once, against a server that answers 429 to more than it takes."""
    folder.mkdir()
    with kfp_stub(folder) as stub:
        stub.configure(qps=LIMIT, burst=10, over="429")
        stub.script(outcome="run")  # the end of one would hurry the next along
        told = DEFAULTS | {"rate": asked.rate, "burst": asked.burst}
        place = made(folder, stub, {"sweep": asked.sweep}, **told)
        place.push()
        began, stored = _drop_all(place, events)
        counts = stub.counts()
        last = max(one["at"] for one in stub.control("GET", "executions"))
        errors = sum(number for status, number in counts["statuses"].items() if int(status) >= 400)
        per_key = Counter(counts["executed_keys"]).values()
        return Burst(events, asked, stored, last - began, errors, (min(per_key), max(per_key)))


def _drop_all(place: Place, events: int) -> tuple[float, float]:
    """When it began, and the seconds until all were stored; back when all are runs on the server."""
    with place.opened(rings=True) as app:
        duties = Duties(app, app.pace)
        try:
            began = time.time()
            for number in range(events):
                told = {"eTag": f"e{number}", "sequencer": f"187A5B1C{number:08X}", "request": str(number)}
                drop(app, f"{number % KEYS}.csv", **told)
            stored = time.time() - began
            while len(place.stub.counts()["keys"]) < events:
                if time.time() - began > PATIENCE:
                    raise TimeoutError(f"not all submitted within {PATIENCE:.0f} s")
                time.sleep(0.5)
        finally:
            duties.close()
    return began, stored
