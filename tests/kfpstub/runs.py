"""The runs' endpoints, v2beta1 and the one of v1beta1 that is asked for reasons."""

from kfpstub import identity, life, paging, submit, views
from kfpstub.machine import Answer, Machine, Request
from kfpstub.refusals import ABORTED, INVALID, Refused, missing, refused
from kfpstub.store import Row

FIELDS = {
    "run_id": "run_id", "id": "run_id", "display_name": "display_name", "name": "display_name",
    "created_at": "created_at", "finished_at": "finished_at", "scheduled_at": "created_at",
    "description": "description", "storage_state": "storage_state", "state": "state", "status": "state",
    "namespace": "namespace",
    "experiment_id": "experiment_id", "pipeline_id": "pipeline_id", "pipeline_version_id": "pipeline_version_id",
}  # fmt: skip


def create(machine: Machine, request: Request) -> Answer:
    """POST /runs."""
    return Answer(body=views.run(submit.run_of(machine, request), machine.clock.now()))


def listing(machine: Machine, request: Request) -> Answer:
    """GET /runs. The faults of lists are here: stale, partial, unfiltered, clamped."""
    now, query = machine.clock.now(), dict(request.query)
    rows = _visible(machine, request, query, now)
    if request.bend.get("ignore_filter"):
        query.pop("filter", None)
    kind = paging.Listing("Run", "runs", "run_id", FIELDS, lambda row, field: _value(row, field, now))
    try:
        asked = paging.wanted(kind, query)
        if "page_clamp" in request.bend:
            asked = paging.Wanted(**vars(asked) | {"size": min(asked.size, request.bend["page_clamp"])})
        found, total, token = paging.page(kind, rows, asked)
    except Refused as error:
        raise _worded(error, "Failed to create list options: ") from None
    if not found:
        return Answer()
    more = {"next_page_token": token} if token else {}
    return Answer(body={"runs": [views.run(row, now) for row in found], "total_size": total} | more)


def _visible(machine: Machine, request: Request, query: dict[str, str], now: float) -> list[Row]:
    rows, wanted = machine.store.all("runs"), query.get("experiment_id")
    if wanted:
        experiment = machine.store.get("experiments", wanted)
        if experiment is None:
            why = (
                f"Failed to list runs: Failed to list runs due to error fetching namespace for experiment {wanted}. "
                f"Try filtering based on namespace: Failed to fetch namespace from experiment {wanted}: "
            )
            raise missing("Experiment", wanted, why)
        query["namespace"] = experiment["namespace"]
        rows = [row for row in rows if row["experiment_id"] == wanted]
    before = "Failed to list runs: Failed to list runs due to authorization error."
    identity.allowed(machine, request, query.get("namespace", ""), before)
    if machine.settings.multi_user:
        rows = [row for row in rows if row["namespace"] == query["namespace"]]
    if "stale" in request.bend:
        rows = [row for row in rows if row["created"] <= now - request.bend["stale"]]
    if "partial" in request.bend:
        rows = [row for at, row in enumerate(rows, 1) if at % request.bend["partial"]]
    return rows


def _value(row: Row, field: str, now: float) -> object:
    if field == "state":
        return life.current(row["timeline"], now) or "RUNTIME_STATE_UNSPECIFIED"
    if field == "created_at":
        return int(row["created"])
    if field == "finished_at":
        return int(life.finished(row["timeline"], now))
    if field in {"pipeline_id", "pipeline_version_id"}:
        return (row["reference"] or {}).get(field, "")
    return row[field]


def _worded(error: Refused, before: str) -> Refused:
    """A list's own complaint under the endpoint's words."""
    if "details" in error.body:
        error.body["message"] = before + error.body["message"]
    return error


def _row(machine: Machine, request: Request, run_id: str, before: str) -> Row:
    row = machine.store.get("runs", run_id)
    if row is None:
        raise missing("Run", run_id, f"{before}Failed to fetch run {run_id}: ")
    identity.allowed(machine, request, row["namespace"], f"{before}Failed to authorize the request.")
    return row


def get(machine: Machine, request: Request, run_id: str) -> Answer:
    """GET /runs/{id}."""
    return Answer(body=views.run(_row(machine, request, run_id, "Failed to get a run: "), machine.clock.now()))


def get_v1(machine: Machine, request: Request, run_id: str) -> Answer:
    """GET /apis/v1beta1/runs/{id}."""
    row = _row(machine, request, run_id, "Failed to get a v1beta1 run: ")
    version = machine.store.get("versions", (row["reference"] or {}).get("pipeline_version_id", ""))
    spec = version["spec"] if version else row["spec"]
    return Answer(body=views.run_v1(row, row["version_name"], spec, machine.clock.now()))


def terminate(machine: Machine, request: Request, run_id: str) -> Answer:
    """POST /runs/{id}:terminate."""
    before = f"Failed to terminate a run: Failed to terminate run {run_id}"
    with machine.store.lock:
        row = _row(machine, request, run_id, f"{before} due to error fetching the run: ")
        now = machine.clock.now()
        state = life.current(row["timeline"], now)
        if state in life.TERMINAL:
            detail = f"Failed to terminate a run {run_id}. Row not found"
            raise refused(INVALID, f"{before}: Invalid input error: {detail}", detail)
        if state != "CANCELING":
            _lives(machine, row, life.terminated(row["timeline"], now, row["script"]))
    return Answer()


def retry(machine: Machine, request: Request, run_id: str) -> Answer:
    """POST /runs/{id}:retry."""
    before = "Failed to retry a run: "
    with machine.store.lock:
        row = _row(machine, request, run_id, f"{before}Failed to retry run {run_id} due to error fetching the run: ")
        now = machine.clock.now()
        if not life.reported(row["timeline"], now):
            detail = f"Failed to retry run {run_id} due to error fetching workflow manifest"
            why = "Invalid input error: Workflow manifest cannot be empty"
            raise refused(ABORTED, f"{before}BadRequestError: {detail}: {why}", detail)
        if life.current(row["timeline"], now) not in {"FAILED", "CANCELED"} or row["storage_state"] == "ARCHIVED":
            detail = "Workflow must be Failed/Error to retry: workflow cannot be retried"
            whole = f"{before}Failed to retry run {run_id}: BadRequestError: {detail}"
            raise refused(ABORTED, whole, "Workflow must be Failed/Error to retry")
        _lives(machine, row, life.retried(row["timeline"], now, row["script"]))
    return Answer()


def _lives(machine: Machine, row: Row, timeline: life.Timeline) -> None:
    machine.store.put("runs", row["run_id"], row | {"timeline": timeline})


def archive(machine: Machine, request: Request, run_id: str) -> Answer:
    """POST /runs/{id}:archive. The run goes on."""
    return _stow(machine, request, run_id, "ARCHIVED")


def unarchive(machine: Machine, request: Request, run_id: str) -> Answer:
    """POST /runs/{id}:unarchive."""
    return _stow(machine, request, run_id, "AVAILABLE")


def _stow(machine: Machine, request: Request, run_id: str, storage: str) -> Answer:
    with machine.store.lock:
        row = _row(machine, request, run_id, "Failed to archive a run: ")
        machine.store.put("runs", run_id, row | {"storage_state": storage})
    return Answer()


def delete(machine: Machine, request: Request, run_id: str) -> Answer:
    """DELETE /runs/{id}."""
    _row(machine, request, run_id, f"Failed to delete a run: Failed to delete run {run_id} as it does not exist: ")
    machine.store.put("runs", run_id, None)
    return Answer()
