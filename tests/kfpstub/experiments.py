"""The experiments' endpoints. A server without any has one named Default, as the real one."""

import json
import uuid

from kfpstub import paging, views
from kfpstub.machine import Answer, Machine, Request
from kfpstub.refusals import EXISTS, INVALID, Refused, missing, refused
from kfpstub.store import Row

FIELDS = {
    "experiment_id": "experiment_id", "id": "experiment_id", "display_name": "display_name", "name": "display_name",
    "created_at": "created_at", "description": "description", "namespace": "namespace",
    "storage_state": "storage_state",
    "last_run_created_at": "last_run",
}  # fmt: skip


def first(machine: Machine) -> None:
    """The one that runs without an experiment belong to."""
    if not machine.store.all("experiments") and not machine.settings.multi_user:
        _made(machine, "Default", "All runs created without specifying an experiment will be grouped here.", "")


def _made(machine: Machine, name: str, description: str, namespace: str) -> Row:
    row: Row = {
        "experiment_id": str(uuid.uuid4()),
        "display_name": name,
        "description": description,
        "namespace": namespace,
        "created": machine.clock.now(),
        "storage_state": "AVAILABLE",
        "last_run": 0,
    }
    machine.store.put("experiments", row["experiment_id"], row)
    return row


def create(machine: Machine, request: Request) -> Answer:
    """POST /experiments."""
    body = json.loads(request.body or b"{}")
    name = body.get("display_name") or body.get("displayName") or ""
    namespace = body.get("namespace", "")
    if not name or (machine.settings.multi_user and not namespace):
        detail = "Experiment's name is empty" if not name else "Experiment's namespace is empty"
        raise refused(INVALID, f"Failed to create a experiment: Invalid input error: {detail}", detail)
    with machine.store.lock:
        taken = [(row["display_name"], row["namespace"]) for row in machine.store.all("experiments")]
        if (name, namespace) in taken:
            detail = f"Failed to create a new experiment. The name {name} already exists. Please specify a new name"
            raise refused(EXISTS, f"Failed to create a experiment: Already exist error: {detail}", detail)
        return Answer(body=views.experiment(_made(machine, name, body.get("description", ""), namespace)))


def listing(machine: Machine, request: Request) -> Answer:
    """GET /experiments."""
    rows = [row for row in machine.store.all("experiments") if row["namespace"] == request.query.get("namespace", "")]
    kind = paging.Listing("Experiment", "experiments", "experiment_id", FIELDS, _value)
    try:
        found, total, token = paging.page(kind, rows, paging.wanted(kind, request.query))
    except Refused as error:
        error.body["message"] = "Failed to create list options: " + error.body["message"]
        raise
    if not found:
        return Answer()
    more = {"next_page_token": token} if token else {}
    return Answer(body={"experiments": [views.experiment(row) for row in found], "total_size": total} | more)


def _value(row: Row, field: str) -> object:
    return int(row["created"]) if field == "created_at" else row[field]


def _row(machine: Machine, experiment_id: str) -> Row:
    row = machine.store.get("experiments", experiment_id)
    if row is None:
        raise missing("Experiment", experiment_id, "Failed to get an experiment: ")
    return row


def get(machine: Machine, request: Request, experiment_id: str) -> Answer:
    """GET /experiments/{id}."""
    return Answer(body=views.experiment(_row(machine, experiment_id)))


def delete(machine: Machine, request: Request, experiment_id: str) -> Answer:
    """DELETE /experiments/{id}. Its runs stay."""
    _row(machine, experiment_id)
    machine.store.put("experiments", experiment_id, None)
    return Answer()


def archive(machine: Machine, request: Request, experiment_id: str) -> Answer:
    """POST /experiments/{id}:archive, with all its runs."""
    with machine.store.lock:
        for row in machine.store.all("runs"):
            if row["experiment_id"] == experiment_id:
                machine.store.put("runs", row["run_id"], row | {"storage_state": "ARCHIVED"})
        return _stow(machine, experiment_id, "ARCHIVED")


def unarchive(machine: Machine, request: Request, experiment_id: str) -> Answer:
    """POST /experiments/{id}:unarchive. Its runs stay archived."""
    return _stow(machine, experiment_id, "AVAILABLE")


def _stow(machine: Machine, experiment_id: str, storage: str) -> Answer:
    with machine.store.lock:
        machine.store.put("experiments", experiment_id, _row(machine, experiment_id) | {"storage_state": storage})
    return Answer()
