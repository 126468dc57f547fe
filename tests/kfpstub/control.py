"""`/_stub`: how a test tells the stub what to do, and asks what was done. Nothing here is KFP's.

GET    /_stub/counts      creations and executions by name and run key, requests by endpoint and minute, statuses
GET    /_stub/executions  every Workflow that was made, hidden ones included
POST   /_stub/faults      one fault or a list: {mode, match: {method, path, body}, times, after, seconds, ...}
GET    /_stub/faults      the faults with their hits; DELETE forgets them
POST   /_stub/script      one script or a list: {match, pipeline, outcome, pending, running, canceling, retry, task,
                          message, outputs, quiet_cancel, times, existing}
POST   /_stub/config      any of machine.Settings
POST   /_stub/clock       {set: seconds} stands still, {advance: seconds}, {reset: true}
POST   /_stub/runs        {count, name, outcome, experiment_id, age}: many runs at once
POST   /_stub/reset       {what: [faults, scripts, counts, clock, runs, pipelines, experiments]}, all by default
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from kfpstub import experiments, faults, life
from kfpstub.machine import ANY_SCRIPT, Answer, Machine, Request
from kfpstub.store import Row

RUN_KEY = re.compile(r"[a-z2-7]{16}")


def run_key(name: str) -> str | None:
    """The last word of a display name, when it looks like a run key."""
    last = name.split()[-1:] or [""]
    return last[0] if RUN_KEY.fullmatch(last[0]) else None


def counts(machine: Machine, body: Any) -> Any:
    """What was made and asked for."""
    done = machine.store.all("executions")
    shown = [one["display_name"] for one in done if not one["hidden"]]
    hidden = [one["display_name"] for one in done if one["hidden"]]
    return {
        "creates": dict(Counter(shown)),
        "hidden": dict(Counter(hidden)),
        "keys": dict(Counter(key for name in shown if (key := run_key(name)))),
        "executed_keys": dict(Counter(key for name in shown + hidden if (key := run_key(name)))),
        "executed": len(done),
        "runs": len(machine.store.all("runs")),
        "unauthorized": machine.counts.statuses["401"],
        **machine.counts.shown(),
    }


def executions(machine: Machine, body: Any) -> Any:
    """All of them."""
    return machine.store.all("executions")


def add_faults(machine: Machine, body: Any) -> Any:
    """To those that are there."""
    new = [faults.filled(one) for one in (body if isinstance(body, list) else [body])]
    with machine.store.lock:
        machine.faults += new
    return new


def show_faults(machine: Machine, body: Any) -> Any:
    """With how often each was met."""
    return machine.faults


def drop_faults(machine: Machine, body: Any) -> Any:
    """All of them."""
    machine.faults = []
    return {}


def add_scripts(machine: Machine, body: Any) -> Any:
    """For runs to come; with `existing`, for the open ones that fit as well, from now on."""
    for given in body if isinstance(body, list) else [body]:
        existing = given.pop("existing", False)
        strange = set(given) - set(ANY_SCRIPT) - {"pending", "running", "canceling"}
        if strange or not {given.get("outcome", "run"), given.get("retry", "run")} <= life.OUTCOMES:
            raise ValueError(f"not a script: {given}; outcomes are {sorted(life.OUTCOMES)}")
        script = {"match": "", "pipeline": "", "times": -1} | given
        with machine.store.lock:
            machine.scripts.append(script)
            if existing:
                _replan(machine, script)
    return {}


def _replan(machine: Machine, script: Row) -> None:
    now = machine.clock.now()
    for row in machine.store.all("runs"):
        done = life.passed(row["timeline"], now)
        fits = script["match"] in row["display_name"] and script["pipeline"] in {"", row["pipeline"]}
        if not fits or done[-1][1] in life.TERMINAL:
            continue
        whole = row["script"] | script
        if done[-1][1] == "RUNNING":
            timeline = done + life.running(now, whole)[1:]
        else:
            timeline = done + life.planned(now, whole)[1:]
        told = {"failing": whole["task"], "message": whole["message"], "outputs": whole["outputs"]}
        machine.store.put("runs", row["run_id"], row | told | {"timeline": timeline, "script": whole})


def configure(machine: Machine, body: Any) -> Any:
    """Settings by name; the token bucket is full again."""
    for name, value in body.items():
        if not hasattr(machine.settings, name):
            raise ValueError(f"no setting is named {name}")
        setattr(machine.settings, name, value)
    machine.bucket.reset()
    return vars(machine.settings)


def clock(machine: Machine, body: Any) -> Any:
    """Set, advance, reset."""
    if body.get("reset"):
        machine.clock.reset()
    if "set" in body:
        machine.clock.set(body["set"])
    machine.clock.advance(body.get("advance", 0))
    return {"now": machine.clock.now()}


def many_runs(machine: Machine, body: Any) -> Any:
    """Runs that nobody created: not counted as creations."""
    script = machine.script_for("", "") | {"outcome": body.get("outcome", "run"), "pending": 0}
    where = body.get("experiment_id") or machine.store.all("experiments")[0]["experiment_id"]
    began = machine.clock.now() - body.get("age", 0)
    row = {
        "experiment_id": where, "namespace": "", "description": "", "service_account": "pipeline-runner",
        "storage_state": "AVAILABLE", "reference": None, "version_name": "", "spec": {}, "steps": ["step"],
        "script": script, "outputs": {}, "pipeline": "", "workflow": "bulk-00000",
        "runtime_config": None, "created": began, "taskless": False,
        "timeline": life.planned(began, script), "failing": script["task"], "message": script["message"],
    }  # fmt: skip
    ids = []
    for at in range(body["count"]):
        ids.append(str(uuid.uuid4()))
        name = f"{body.get('name', 'bulk')} {at}"
        machine.store.put("runs", ids[-1], row | {"run_id": ids[-1], "display_name": name})
    return {"run_ids": ids}


def reset(machine: Machine, body: Any) -> Any:
    """Forget."""
    steps: dict[str, Callable[[], None]] = {
        "faults": machine.faults.clear,
        "scripts": machine.scripts.clear,
        "counts": machine.counts.reset,
        "clock": machine.clock.reset,
        "runs": lambda: machine.store.clear("runs", "executions"),
        "pipelines": lambda: machine.store.clear("pipelines", "versions"),
        "experiments": lambda: machine.store.clear("experiments"),
    }
    with machine.store.lock:
        for name in body.get("what", list(steps)):
            steps[name]()
        experiments.first(machine)
    return {}


ROUTES: dict[tuple[str, str], Callable[[Machine, Any], Any]] = {
    ("GET", "/_stub/counts"): counts,
    ("GET", "/_stub/executions"): executions,
    ("POST", "/_stub/faults"): add_faults,
    ("GET", "/_stub/faults"): show_faults,
    ("DELETE", "/_stub/faults"): drop_faults,
    ("POST", "/_stub/script"): add_scripts,
    ("POST", "/_stub/config"): configure,
    ("POST", "/_stub/clock"): clock,
    ("POST", "/_stub/runs"): many_runs,
    ("POST", "/_stub/reset"): reset,
}


def serve(machine: Machine, request: Request) -> Answer:
    """400 with the reason for what makes no sense: a test that misspells a fault must not pass."""
    handler = ROUTES.get((request.method, request.path))
    if handler is None:
        return Answer(404, {"error": f"the stub has no {request.method} {request.path}"})
    try:
        return Answer(200, handler(machine, json.loads(request.body or b"{}")))
    except (ValueError, KeyError, TypeError) as error:
        return Answer(400, {"error": repr(error)})
