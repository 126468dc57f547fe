"""CreateRun: the one endpoint that is not idempotent. The checks in the server's order, the Workflow, the row.

The Workflow is made before the row, as in backend/src/apiserver/resource/resource_manager.go: when the row cannot be
stored, the client reads 500 and the Workflow runs all the same, invisible. Those are the `hidden` executions.
"""

import json
import secrets
import time
import uuid
from typing import Any

from kfpstub import identity, inputs, life, tasks
from kfpstub.filters import snake
from kfpstub.machine import Machine, Request
from kfpstub.refusals import INTERNAL, INVALID, Refused, malformed, missing, refused
from kfpstub.store import Row

KNOWN = {
    "experiment_id", "run_id", "display_name", "storage_state", "description", "pipeline_version_id", "pipeline_spec",
    "pipeline_version_reference", "runtime_config", "service_account", "recurring_run_id",
}  # fmt: skip
LIMIT = 3_145_728
CREATE = "Failed to create a new run: "


def run_of(machine: Machine, request: Request) -> Row:
    """Makes it, or raises Refused; a second one when a fault says so. The row that was stored."""
    body = document(request.body)
    row = _checked(machine, request, body)
    inputs.placeholders((row["runtime_config"] or {}).get("parameters", {}))
    if len(request.body) > LIMIT:
        raise _internal(
            f"InternalServerError: Failed to create a workflow for (): Request entity too large: limit is {LIMIT}"
        )
    _throttled(machine)
    for _ in range(2 if request.bend.get("twice") else 1):
        stored = _stored(machine, row, str(body.get("run_id") or uuid.uuid4()), len(request.body))
        body.pop("run_id", None)
    if request.bend.get("gone"):
        machine.store.put("runs", stored["run_id"], None)
    return stored


def document(body: bytes) -> Row:
    """As protojson reads it: snake or camel case, and nothing that it does not know."""
    try:
        text = body.decode()
        given = json.loads(text or "{}")
        json.dumps(given, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise malformed(f"syntax error (line 1:{error.pos + 1})") from None
    except UnicodeError:  # bytes that are not UTF-8, or an escaped half of a surrogate pair
        raise malformed("syntax error (line 1:1): invalid UTF-8") from None
    if not isinstance(given, dict):
        raise malformed(f"syntax error (line 1:1): unexpected token {text[:1]}")
    for name in given:
        if snake(name) not in KNOWN:
            column = text.index(f'"{name}"') + 1
            raise malformed(f'(line 1:{column}): unknown field "{name}"')
    found = {snake(name): value for name, value in given.items()}
    for nested in ("pipeline_version_reference", "runtime_config"):
        if nested in found:
            found[nested] = {snake(name): value for name, value in found[nested].items()}
    return found


def _internal(why: str) -> Refused:
    return refused(INTERNAL, CREATE + why, "")


def _checked(machine: Machine, request: Request, body: Row) -> Row:
    """The row, all but its id and its life."""
    if not body.get("display_name"):
        raise refused(
            INTERNAL,
            "CreateJob(job.ToV2())Failed to create a run due to conversion error: InternalServerError: Failed to "
            "convert a API run detail to its internal representation: Invalid input error: Run name cannot be empty",
            "",
        )
    experiment = _experiment(machine, body)
    identity.allowed(machine, request, experiment["namespace"], f"{CREATE}Failed to authorize the request.")
    reference, version, spec = _specification(machine, body)
    config = body.get("runtime_config")
    inputs.check(spec, (config or {}).get("parameters", {}))
    if config is not None:
        config = inputs.as_doubles(config)
    return {
        "display_name": body["display_name"],
        "experiment_id": experiment["experiment_id"],
        "namespace": experiment["namespace"],
        "description": body.get("description", ""),
        "service_account": body.get("service_account") or "pipeline-runner",
        "storage_state": "AVAILABLE",
        "reference": reference,
        "version_name": version["name"] if version else "",
        "spec": None if version else inputs.as_doubles(body["pipeline_spec"]),
        "steps": tasks.steps_of(spec),
        "pipeline": _pipeline_name(machine, version, spec),
        "workflow": f"{spec['pipelineInfo']['name']}-{secrets.token_hex(3)[:5]}",
        "runtime_config": config,
    }


def _experiment(machine: Machine, body: Row) -> Row:
    before = f"{CREATE}Failed to create a run due to invalid experimentId and namespace combination: "
    wanted = body.get("experiment_id")
    if not wanted:
        if machine.settings.multi_user:
            detail = "Experiment id can not be empty in multi-user mode"
            raise refused(INVALID, f"{before}Invalid input error: {detail}", detail)
        return next(row for row in machine.store.all("experiments") if row["display_name"] == "Default")
    found = machine.store.get("experiments", wanted)
    if found is None:
        why = f"Failed to fetch namespace for experiment {wanted}: Failed to fetch namespace from experiment {wanted}: "
        raise missing("Experiment", wanted, before + why)
    return found


def _specification(machine: Machine, body: Row) -> tuple[Row | None, Row | None, Any]:
    """The reference as it will be shown, the version that it means, and the pipeline."""
    asked = body.get("pipeline_version_reference")
    if not asked:
        if not body.get("pipeline_spec"):
            detail = "Failed to fetch a template with an empty pipeline spec manifest"
            raise refused(INVALID, f"{CREATE}Invalid input error: {detail}", detail)
        spec = body["pipeline_spec"]
        return None, None, spec.get("pipeline_spec", spec)
    version = _version(machine, asked.get("pipeline_id", ""), asked.get("pipeline_version_id", ""))
    return {name: version[name] for name in ("pipeline_id", "pipeline_version_id")}, version, version["spec"]


def _version(machine: Machine, pipeline: str, wanted: str) -> Row:
    before = (
        "InternalServerError: Failed to create a run due to error fetching manifest: Failed to fetch a template due to "
        "error retrieving pipeline version: "
    )
    if not wanted:
        own = [row for row in machine.store.all("versions") if row["pipeline_id"] == pipeline]
        if not own:
            raise _internal(f"{before}ResourceNotFoundError: PipelineVersion of {pipeline} not found")
        return max(own, key=lambda row: (int(row["created"]), row["pipeline_version_id"]))
    found = machine.store.get("versions", wanted)
    if found is None:
        why = f"Failed to fetch a pipeline version and its manifest from pipeline version {wanted}: Failed to get "
        why += f"a pipeline version with id {wanted}: ResourceNotFoundError: PipelineVersion {wanted} not found"
        raise _internal(before + why)
    if pipeline and found["pipeline_id"] != pipeline:
        why = f"Pipeline version {wanted} belongs to pipeline {found['pipeline_id']} (not {pipeline})"
        raise _internal(f"{before}Invalid input error: {why}")
    return found


def _pipeline_name(machine: Machine, version: Row | None, spec: Any) -> str:
    held = machine.store.get("pipelines", version["pipeline_id"]) if version else None
    return str(held["name"] if held else spec["pipelineInfo"]["name"])


def _throttled(machine: Machine) -> None:
    """The client of Kubernetes makes a creation wait; other set-ups refuse it."""
    settings = machine.settings
    if settings.qps <= 0:
        return
    seconds = machine.bucket.wait(settings.qps, settings.burst)
    if seconds > 0 and settings.over != "wait":
        machine.bucket.give_back()
        if settings.over == "429":
            raise Refused(429, {"code": 8, "message": "too many requests"})
        raise _internal(
            "InternalServerError: Failed to create a workflow for (): client rate limiter Wait returned an error"
        )
    time.sleep(seconds)


def _stored(machine: Machine, checked: Row, run_id: str, size: int) -> Row:
    """The Workflow first, and then the row, which the database may refuse."""
    name, now = checked["display_name"], machine.clock.now()
    script = machine.script_for(name, checked["pipeline"])
    if size > 1_000_000:
        script |= {"outcome": "nostate"}
    elif size > 500_000:
        script |= {"outcome": "reject"}
    elif size > 128_000:
        script |= {"big": True}
    row = checked | {
        "run_id": run_id,
        "created": now,
        "timeline": life.planned(now, script),
        "script": script,
        "failing": script["task"],
        "message": script["message"],
        "outputs": script["outputs"],
        "taskless": script["outcome"] in {"nostate", "reject"},
    }
    with machine.store.lock:
        complaint = _complaint(machine, row)
        execution = {
            "display_name": name,
            "run_id": None if complaint else run_id,
            "at": now,
            "hidden": bool(complaint),
        }
        machine.store.put("executions", str(uuid.uuid4()), execution)
        if complaint:
            raise _internal(
                f"Failed to create a run: InternalServerError: Failed to store run {name} to table: {complaint}"
            )
        machine.store.put("runs", run_id, row)
        experiment = machine.store.get("experiments", row["experiment_id"])
        if experiment is not None:
            machine.store.put("experiments", row["experiment_id"], experiment | {"last_run": now})
    return row


def _complaint(machine: Machine, row: Row) -> str:
    """What the database says against the row, or nothing."""
    if machine.store.get("runs", row["run_id"]) is not None:
        return f"Error 1062 (23000): Duplicate entry '{row['run_id']}' for key 'PRIMARY'"
    if len(row["display_name"]) > 255:
        return "Error 1406 (22001): Data too long for column 'DisplayName' at row 1"
    for value, column in (
        (row["display_name"], "DisplayName"),
        (row["description"], "Description"),
        (row["runtime_config"], "PipelineRuntimeManifest"),
        (row["spec"], "PipelineSpecManifest"),
    ):
        found = inputs.unstorable(value, machine.settings.charset)
        if found:
            return f"{found} `mlpipeline`.`run_details`.`{column}` at row 1"
    return ""
