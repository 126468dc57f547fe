"""A run's Argo nodes, as `task_details` and as the workflow manifest list them. Derived from the row and the clock."""

import zlib
from dataclasses import dataclass
from typing import Any

from kfpstub import life
from kfpstub.stamps import stamp
from kfpstub.store import Row

OMITTED = None
PHASES = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "RUNNING": "Running", "PENDING": "Pending", OMITTED: "Omitted"}


@dataclass(frozen=True)
class Node:
    """One Argo node. Omitted ones have no state."""

    name: str
    state: str | None
    key: str
    message: str = ""


def steps_of(spec: Any) -> list[str]:
    """The tasks of the root DAG, those that others wait for first."""
    tasks = dict(spec["root"]["dag"]["tasks"])
    ordered: list[str] = []
    while tasks:
        ready = [name for name, task in tasks.items() if not set(task.get("dependentTasks", [])) & set(tasks)]
        for name in ready or list(tasks):
            ordered.append(name)
            del tasks[name]
    return ordered


def nodes(row: Row, now: float) -> list[Node]:
    """Empty before the workflow is reported, and for runs that never got one."""
    timeline = row["timeline"]
    if not life.reported(timeline, now) or row.get("taskless"):
        return []
    ended = [(at, name) for at, name in life.history(timeline, now) if name in life.TERMINAL]
    if not ended:
        return _running(row)
    if ended[-1][1] in {"SUCCEEDED", "SKIPPED"}:
        return _through(row, len(row["steps"]), "SUCCEEDED")
    return _failed(row, [name for _, name in life.history(timeline, now)])


def _driven(name: str, states: tuple[str | None, str | None, str | None], message: str = "") -> list[Node]:
    driver, step, executor = states
    found = [Node(f"{name}-driver", driver, f"{name}-driver"), Node(name, step, name)]
    if step is not OMITTED:
        found.append(Node("executor", executor, f"{name}/executor", message))
    return found


def _through(row: Row, count: int, root: str) -> list[Node]:
    found = [Node(row["workflow"], root, "workflow"), Node("root-driver", "SUCCEEDED", "root-driver")]
    found.append(Node("root", root, "root"))
    for name in row["steps"][:count]:
        found += _driven(name, ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED"))
    return found


def _running(row: Row) -> list[Node]:
    return _through(row, 0, "RUNNING") + _driven(row["steps"][0], ("SUCCEEDED", "RUNNING", "RUNNING"))


def _failed(row: Row, states: list[Any]) -> list[Node]:
    """At the scripted task; a terminated run fails where it was."""
    stopped = "CANCELING" in states[-2:]
    message = "workflow shutdown with strategy:  Terminate" if stopped else row["message"]
    if row["failing"] == "root-driver" or "RUNNING" not in states:
        broken = Node("root-driver", "FAILED", "root-driver", message)
        return [Node(row["workflow"], "FAILED", "workflow"), broken, Node("root", OMITTED, "root")]
    at = row["steps"].index(row["failing"]) if row["failing"] in row["steps"] else 0
    found = _through(row, at, "FAILED") + _driven(row["steps"][at], ("SUCCEEDED", "FAILED", "FAILED"), message)
    for name in row["steps"][at + 1 :]:
        found += _driven(name, (OMITTED, OMITTED, OMITTED))
    return found


def details(row: Row, now: float) -> list[Row]:
    """`run_details.task_details`, in the order of the ids, which is no order."""
    created, ended = stamp(row["created"]), life.finished(row["timeline"], now)
    found = []
    for node in nodes(row, now):
        done = node.state not in {"RUNNING", "PENDING"}
        noted = stamp(ended or now)
        entry: Row = {
            "run_id": row["run_id"],
            "task_id": f"{row['run_id'][:-12]}{zlib.crc32(node.key.encode()):012x}",
            "display_name": node.name,
            "create_time": created,
            "start_time": created,
            "end_time": (stamp(ended) if ended else created) if done else "0001-01-01T00:00:00Z",
        }
        entry |= {} if node.state is OMITTED else {"state": node.state}
        entry["state_history"] = [{"update_time": noted} | ({} if node.state is OMITTED else {"state": node.state})]
        if node.state is not OMITTED and node.name != "executor":
            entry["child_tasks"] = [{"pod_name": pod(row, node.key)}]
        if node.name in row["outputs"]:
            entry["outputs"] = row["outputs"][node.name]
        found.append(entry)
    return sorted(found, key=lambda entry: str(entry["task_id"]))


def pod(row: Row, key: str) -> str:
    """A name as Argo makes them."""
    return f"{row['workflow']}-{zlib.crc32(key.encode())}"


def manifest_nodes(row: Row, now: float) -> dict[str, Row]:
    """`status.nodes` of the workflow: the only place where the reason of a failure stands."""
    ended = life.finished(row["timeline"], now)
    found = {}
    for node in nodes(row, now):
        name = row["workflow"] if node.key == "workflow" else pod(row, node.key)
        kind = "Pod" if node.name == "executor" or node.name.endswith("-driver") else "DAG"
        found[name] = {
            "id": name,
            "name": f"{row['workflow']}.{node.key}",
            "displayName": node.name,
            "type": "Skipped" if node.state is OMITTED else kind,
            "phase": PHASES[node.state],
            "startedAt": stamp(row["created"]),
            "finishedAt": stamp(ended) if ended else None,
        }
        said = "omitted: depends condition not met" if node.state is OMITTED else node.message
        found[name] |= {"message": said} if said else {}
    return found
