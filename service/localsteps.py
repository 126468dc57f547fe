"""Executes one compiled pipeline with `kfp.local`, in this very process, and leaves `outcome.json`.

Started by `service.localrun` (`python localsteps.py RUN LIFE_FD`), which holds the other end of LIFE_FD: when that
closes, this process and every step in its group end at once. Imports nothing of ours. `kfp.local` keeps global state
and patches `print`, so it gets a process a run. It raises no more than the failed task's name: the reason is read
from the log.
"""

import io
import json
import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import yaml

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FAILED = re.compile(r"Task '([^']+)' finished with status FAILURE")
_INNER = re.compile(r"Inner task failed: '([^']+)'")
_NOISE = re.compile(r"^\s*$|^-+$|\[KFP Executor |^\d\d:\d\d:\d\d\.\d{3} - ")
_TRACEBACK = "Traceback (most recent call last):"
_LOG_TAIL = 4 << 20
_HIDDEN_FROM = 4  # characters of a secret: taking out less would leave no word whole
_ERROR_AT_MOST = 600
_OUTPUTS_AT_MOST = 256 << 10


def main(arguments: Sequence[str]) -> None:
    """Run the pipeline of the folder and write what came of it."""
    run, life = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=_die_with_guardian, args=(life,), daemon=True).start()
    job = json.loads((run / "job.json").read_text())
    secrets = _secrets()
    if secrets:  # kfp prints every step's inputs
        sys.stdout = cast("TextIO", _Hiding(sys.stdout, secrets.values()))
        sys.stderr = cast("TextIO", _Hiding(sys.stderr, secrets.values()))
    try:
        outcome = {"state": "succeeded", "outputs": bounded(_execute(run, job["params"] | secrets, job["types"]))}
    except Exception as problem:  # noqa: BLE001 - any failure is this run's outcome
        traceback.print_exc()
        sys.stdout.flush()
        task, error = explain(_tail(run / "run.log"), str(problem) or repr(problem))
        outcome = {"state": "failed", "failed_task": task, "error": error}
    temporary = run / f".outcome.{os.getpid()}"
    temporary.write_text(json.dumps(outcome, allow_nan=False))
    temporary.replace(run / "outcome.json")


def _secrets() -> dict[str, str]:
    """Parameters that stand in no file, from the pipe that the guardian inherited; it can be read once."""
    handle = os.environ.pop("KFP_TRIGGERS_RUN_SECRETS_FD", "")
    if not handle:
        return {}
    with os.fdopen(int(handle), "rb") as pipe:
        found: dict[str, str] = json.loads(pipe.read())
    return found


class _Hiding(io.TextIOBase):
    """A stream that writes whole lines, each without the secrets: as they are, and as JSON and Python write them."""

    def __init__(self, real: TextIO, secrets: Iterable[str]) -> None:
        self._real, self._rest = real, ""
        forms = {form for one in secrets for form in (one, *one.splitlines(), json.dumps(one)[1:-1], repr(one)[1:-1])}
        self._forms = sorted((one for one in forms if len(one) >= _HIDDEN_FROM), key=len, reverse=True)

    def write(self, text: str) -> int:
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        for line in lines:
            self._real.write(self._cleaned(line) + "\n")
        return len(text)

    def flush(self) -> None:
        self._real.write(self._cleaned(self._rest))
        self._rest = ""
        self._real.flush()

    def _cleaned(self, line: str) -> str:
        for form in self._forms:
            line = line.replace(form, "…")
        return line


def _die_with_guardian(life: int) -> None:
    os.read(life, 1)
    os.killpg(0, signal.SIGKILL)


def _execute(run: Path, params: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    from kfp import components, local  # noqa: PLC0415 - two seconds; `explain` and the rest are used without

    given = {name: typed(value, types.get(name, "")) for name, value in params.items() if value is not None}
    documents = list(yaml.load_all((run / "package.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    leave_out(documents[0], given)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(run / "root"), raise_on_error=True)
    pipeline = components.load_component_from_text(yaml.safe_dump_all(documents))
    outputs = {name: _plain(value) for name, value in pipeline(**given).outputs.items()}
    return {"parameters": outputs, "artifacts": _artifacts(run / "root")}


def typed(value: Any, kind: str) -> Any:
    """KFP refuses an int for a float and 3.0 for an int; JSON and CEL know no such difference."""
    if kind == "NUMBER_DOUBLE" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def leave_out(spec: dict[str, Any], given: Iterable[str]) -> None:
    """Unbind tasks from optional inputs that have neither a value nor a default, so that the component's default holds.

    A cluster does so by itself; `kfp.local` 2.17 ends with "Unknown value type" before the first step.
    """
    inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    absent = {name for name, one in inputs.items() if name not in given and "defaultValue" not in one}
    absent &= {name for name, one in inputs.items() if one.get("isOptional")}
    _unbind(spec, spec["root"], absent)


def _unbind(spec: dict[str, Any], component: dict[str, Any], absent: set[str]) -> None:
    for name in absent:
        component["inputDefinitions"]["parameters"].pop(name, None)
    for task in component.get("dag", {}).get("tasks", {}).values():
        bound = task.get("inputs", {}).get("parameters", {})
        gone = {name for name, source in bound.items() if source.get("componentInputParameter") in absent}
        for name in gone:
            del bound[name]
        inner = spec["components"].get(task["componentRef"]["name"], {})
        if gone and "dag" in inner:
            _unbind(spec, inner, gone)


def _artifacts(root: Path) -> dict[str, Any]:
    """Every artifact's place and metadata, as `task/name`: metrics are metadata in KFP."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("executor_output.json")):
        for name, listed in json.loads(path.read_text()).get("artifacts", {}).items():
            for one in listed.get("artifacts", []):
                found[f"{path.parent.name}/{name}"] = {"uri": one.get("uri", ""), "metadata": one.get("metadata", {})}
    return found


def _plain(value: Any) -> Any:
    """Artifacts as dicts, no infinities: what JSON and a database column can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {"uri": str(getattr(value, "uri", value)), "metadata": _plain(dict(getattr(value, "metadata", {})))}


def bounded(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """No more than a row of the store should carry: first the artifacts' metadata goes, then what is too long."""
    plain: dict[str, Any] = {part: _plain(values) for part, values in outputs.items()}
    if len(json.dumps(plain)) > _OUTPUTS_AT_MOST:
        plain["truncated"] = True
        plain["artifacts"] = {name: {"uri": one["uri"]} for name, one in list(plain["artifacts"].items())[:200]}
        plain["parameters"] = {
            name: value for name, value in plain["parameters"].items() if len(json.dumps(value)) < _OUTPUTS_AT_MOST // 8
        }
    return plain if len(json.dumps(plain)) <= _OUTPUTS_AT_MOST else {"truncated": True}


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_TAIL))
        return file.read().decode(errors="replace")


def explain(log: str, problem: str) -> tuple[str, str]:
    """The failed task, and the one sentence of its output that tells a person why; without a task, the problem."""
    lines = _ANSI.sub("", log).splitlines()
    problem = _ANSI.sub("", problem)
    failures = [(number, hit[1]) for number, line in enumerate(lines) if (hit := _FAILED.search(line))]
    named = _INNER.search(problem)
    if not failures:
        return named[1] if named else "", problem.strip()[:_ERROR_AT_MOST]
    end, task = failures[-1]
    begin = max((n for n in range(end) if f"Executing task '{task}'" in lines[n]), default=0)
    return named[1] if named else task, _reason(lines[begin + 1 : end])[:_ERROR_AT_MOST]


def _reason(lines: Sequence[str]) -> str:
    """The exception of the last traceback with its message; without a traceback the last thing that was said."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if starts:
        indent = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
        frames = " " * (indent + 2)
        said = [line for line in lines[starts[-1] + 1 :] if not line.startswith(frames)]
    else:
        said = [line for line in lines if not _NOISE.search(line)][-1:]
    words = []
    for line in said:
        if not line.strip():
            break
        words.append(line.strip())
    return " ".join(words) or "the step ended without a word"


if __name__ == "__main__":
    main(sys.argv[1:])
