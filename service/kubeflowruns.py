"""A KFP run as JSON, read: its state, times and outputs, the run key in its name, and why it failed.

Called by `service.kubeflowwatch` and `.kubeflow`; asks nothing itself. A v2beta1 run holds no reason (measured on
2.17): that stands in Argo's Workflow, which the v1beta1 API still gives.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from service.lifecycle import OF_KFP, State
from service.ports import Observed

Json = Mapping[str, Any]

#: The states in which a run can change by itself, for a list's filter; the last two are a run without a state, which
#: every run is for a while between its agent's first report and Argo's first step (seen on 2.17).
OPEN = ("PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED", "")

_KEY = re.compile(r"[a-z2-7]{16}")
_CLONE = re.compile(r"Clone( \(\d+\))? of ")  # as KFP's UI names a run that a person made from another
_TRIED = re.compile(r"\(\d+(:.*)?\)$")
_SAID_AT_MOST = 500
_NO_REASON = "KFP gives no reason"


def key_of(run: Json) -> str:
    """The run key that the run's name ends in, "" when it ends in nothing like one, or a person cloned the run."""
    if _CLONE.match(str(run.get("display_name") or "")):
        return ""
    words = str(run.get("display_name") or "").split()
    return words[-1] if words and _KEY.fullmatch(words[-1]) else ""


def observed(run: Json) -> Observed:
    """All that the run itself tells; of a failed one the task, and that there is no reason (see `explained`)."""
    state = state_of(run)
    began, ended = _began(run), time_of(run.get("finished_at"))
    if state is not State.FAILED:
        return Observed(state=state, started_at=began, ended_at=ended)
    task = _failed_task(run)
    told = str((run.get("error") or {}).get("message") or _NO_REASON)
    error = f"task {task}: {told}" if task else told
    return Observed(state=state, error=error, failed_task=task, started_at=began, ended_at=ended)


def state_of(run: Json) -> State:
    """KFP's state. `terminate` goes CANCELING → FAILED, and a retry afterwards begins with another RUNNING."""
    state = OF_KFP.get(str(run.get("state") or ""), State.SUBMITTED)
    if state is State.FAILED:
        for past in reversed(_history(run)):
            if past.get("state") in {"RUNNING", "PENDING"}:
                break
            if past.get("state") == "CANCELING":
                return State.CANCELLED
    return state


def explained(bare: Observed, manifest: Json) -> tuple[str, str]:
    """The error of a failed run for a person, and the failed task, from Argo's Workflow; as before when it has none."""
    nodes = _nodes(manifest)
    failed = [one for one in nodes.values() if one.get("phase") in {"Failed", "Error"}]
    pods = [one for one in failed if one.get("type") == "Pod"]
    first = min(pods or [one for one in failed if one.get("message")], key=_finished, default=None)
    if first is None:
        told = (manifest.get("status") or {}).get("message")
        return (_line(str(told)), bare.failed_task) if told else (bare.error, bare.failed_task)
    task = _task_of(first, nodes) or bare.failed_task
    told = _line(str(first.get("message") or _NO_REASON))
    return (f"task {task}: {told}" if task else told), task


def manifest_of(answer: Json) -> Json:
    """Argo's Workflow in a v1beta1 run; empty when there is none that can be read."""
    text = (answer.get("pipeline_runtime") or {}).get("workflow_manifest") or "{}"
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def text_of(run: Json, error: str, link: str) -> str:
    """For a person who wants the log: KFP's API has none, but knows this much."""
    lines = [f"KFP's API gives no logs; the pods' are at {link}", ""]
    lines += [f"{past.get('update_time', '')}  {past.get('state') or '(no state)'}" for past in _history(run)]
    if error:
        lines += ["", error]
    lines += ["", "tasks:"]
    tasks = sorted(_tasks(run), key=lambda one: str(one.get("start_time") or ""))
    lines += [f"{one.get('start_time', '')}  {one.get('state') or 'OMITTED':<10} {_name(one)}" for one in tasks]
    return "\n".join(lines) + "\n"


def time_of(text: Any) -> datetime | None:
    """KFP's time; 1970 is its word for none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.year > 1970 and found.tzinfo else None


def _began(run: Json) -> datetime | None:
    """When it first ran; of one that ended unseen, when it was made."""
    for past in _history(run):
        if past.get("state") == "RUNNING":
            return time_of(past.get("update_time"))
    return time_of(run.get("created_at")) if time_of(run.get("finished_at")) else None


def _history(run: Json) -> Sequence[Json]:
    return [past for past in run.get("state_history") or () if isinstance(past, dict)]


def _tasks(run: Json) -> Sequence[Json]:
    """As KFP lists Argo's nodes: in any order, an omitted one without a state."""
    found = (run.get("run_details") or {}).get("task_details") or ()
    return [task for task in found if isinstance(task, dict)]


def _name(task: Json) -> str:
    return str(task.get("display_name") or "")


def _failed_task(run: Json) -> str:
    """The failed one that began last: around it are those that it is a part of, inside it the executor."""
    failed = [task for task in _tasks(run) if task.get("state") == "FAILED" and not _is_part(task)]
    last = max(failed, key=lambda task: str(task.get("start_time") or ""), default=None)
    return _name(last).removesuffix("-driver") if last else ""


def _is_part(task: Json) -> bool:
    """Whether it is no task of the pipeline's author: the whole workflow, its root, or a pod that carries one out."""
    workflows = {str(child.get("pod_name") or "").rpartition("-")[0] for child in task.get("child_tasks") or ()}
    name = _TRIED.sub("", _name(task))
    return name in {"", "root", "root-driver", "executor"} or name in workflows


def _nodes(manifest: Json) -> Mapping[str, Json]:
    """Argo's nodes by id; a big workflow's are compressed."""
    status = manifest.get("status") or {}
    if packed := status.get("compressedNodes"):
        try:
            text = zlib.decompress(base64.b64decode(packed), wbits=zlib.MAX_WBITS | 32)
            return dict(json.loads(text))
        except (ValueError, zlib.error):
            return {}
    return {key: one for key, one in (status.get("nodes") or {}).items() if isinstance(one, dict)}


def _task_of(node: Json, nodes: Mapping[str, Json]) -> str:
    """KFP's task of a pod: the node around an executor, or the one that a driver prepares."""
    for one in _outward(node, nodes):
        name = _TRIED.sub("", str(one.get("displayName") or ""))
        if name and name != "executor":
            return "" if name in {"root", "root-driver"} else name.removesuffix("-driver")
    return ""


def _outward(node: Json, nodes: Mapping[str, Json]) -> Iterator[Json]:
    for _ in range(len(nodes)):
        yield node
        around = nodes.get(str(node.get("boundaryID") or ""))
        if around is None:
            return
        node = around


def _finished(node: Json) -> str:
    return str(node.get("finishedAt") or "9")


def _line(text: str) -> str:
    return " ".join(text.split())[:_SAID_AT_MOST]
