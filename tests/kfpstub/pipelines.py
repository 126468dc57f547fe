"""The pipelines' and versions' endpoints. The two uploads are in `uploads`."""

import json
import uuid

from kfpstub import paging, views
from kfpstub.machine import Answer, Machine, Request
from kfpstub.refusals import EXISTS, Refused, missing, refused
from kfpstub.store import Row

FIELDS = {
    "pipeline_id": "pipeline_id", "id": "pipeline_id", "name": "name", "display_name": "display_name",
    "created_at": "created_at", "description": "description", "namespace": "namespace",
}  # fmt: skip
VERSION_FIELDS = {
    "pipeline_version_id": "pipeline_version_id", "id": "pipeline_version_id", "name": "name",
    "display_name": "display_name", "created_at": "created_at", "description": "description",
    "pipeline_id": "pipeline_id",
}  # fmt: skip


def named(machine: Machine, name: str, namespace: str) -> Row | None:
    """The pipeline of that name."""
    rows = machine.store.all("pipelines")
    return next((row for row in rows if (row["name"], row["namespace"]) == (name, namespace)), None)


def made(machine: Machine, name: str, description: str, namespace: str) -> Row:
    """A pipeline without a version."""
    row: Row = {
        "pipeline_id": str(uuid.uuid4()),
        "name": name,
        "display_name": name,
        "description": description,
        "namespace": namespace,
        "created": machine.clock.now(),
    }
    machine.store.put("pipelines", row["pipeline_id"], row)
    return row


def create(machine: Machine, request: Request) -> Answer:
    """POST /pipelines: without a version."""
    body = json.loads(request.body or b"{}")
    name, namespace = body.get("display_name") or body.get("name", ""), body.get("namespace", "")
    with machine.store.lock:
        if named(machine, name, namespace):
            detail = f"Failed to create a new pipeline. The name {name} already exists. Please specify a new name"
            raise refused(EXISTS, f"Failed to create a pipeline: Already exist error: {detail}", detail)
        return Answer(body=views.pipeline(made(machine, name, body.get("description", ""), namespace)))


def listing(machine: Machine, request: Request) -> Answer:
    """GET /pipelines."""
    rows = [row for row in machine.store.all("pipelines") if row["namespace"] == request.query.get("namespace", "")]
    kind = paging.Listing("Pipeline", "pipelines", "pipeline_id", FIELDS, _value)
    found, total, token = _page(request, kind, rows, "pipelines")
    shown = {"pipelines": [views.pipeline(row) for row in found], "total_size": total}
    return Answer(body=(shown | ({"next_page_token": token} if token else {})) if found else {})


def _page(request: Request, kind: paging.Listing, rows: list[Row], what: str) -> tuple[list[Row], int, str]:
    query = request.query
    try:
        return paging.page(kind, rows, paging.wanted(kind, query))
    except Refused as error:
        options = f"pageToken: {query.get('page_token', '')}, pageSize: {query.get('page_size') or 0}, "
        options += f"sortBy: {query.get('sort_by', '')}, filter: {query.get('filter', '')}"
        error.body["message"] = f"Failed to list {what} due invalid list options: {options}: {error.body['message']}"
        raise


def _value(row: Row, field: str) -> object:
    return int(row["created"]) if field == "created_at" else row[field]


def _row(machine: Machine, pipeline_id: str, before: str) -> Row:
    row = machine.store.get("pipelines", pipeline_id)
    if row is None:
        raise missing("Pipeline", pipeline_id, f"{before}Failed to get a pipeline with id {pipeline_id}: ")
    return row


def get(machine: Machine, request: Request, pipeline_id: str) -> Answer:
    """GET /pipelines/{id}."""
    before = f"Failed to get a pipeline {pipeline_id}. Check error stack: "
    return Answer(body=views.pipeline(_row(machine, pipeline_id, before)))


def by_name(machine: Machine, request: Request, name: str) -> Answer:
    """GET /pipelines/names/{name}."""
    namespace = request.query.get("namespace", "")
    row = named(machine, name, namespace)
    if row is None:
        before = f"Failed to get a pipeline with name {name} and namespace {namespace}. Check error stack.: "
        before += f"Failed to get a pipeline named {name} in namespace {namespace}: "
        raise missing("Namespace/Pipeline", f"{namespace}/{name}", before)
    return Answer(body=views.pipeline(row))


def delete(machine: Machine, request: Request, pipeline_id: str) -> Answer:
    """DELETE /pipelines/{id}, with its versions."""
    with machine.store.lock:
        _row(machine, pipeline_id, f"Failed to delete a pipeline {pipeline_id}: ")
        for row in machine.store.all("versions"):
            if row["pipeline_id"] == pipeline_id:
                machine.store.put("versions", row["pipeline_version_id"], None)
        machine.store.put("pipelines", pipeline_id, None)
    return Answer()


def versions(machine: Machine, request: Request, pipeline_id: str) -> Answer:
    """GET /pipelines/{id}/versions, each with its specification."""
    before = (
        f"Failed to list pipeline versions for pipeline {pipeline_id}: Failed to list pipeline versions due to error "
    )
    before += (
        f"fetching the namespace for pipeline {pipeline_id}: Failed to get namespace for pipeline id {pipeline_id}: "
    )
    _row(machine, pipeline_id, before)
    rows = [row for row in machine.store.all("versions") if row["pipeline_id"] == pipeline_id]
    kind = paging.Listing("PipelineVersion", "pipeline_versions", "pipeline_version_id", VERSION_FIELDS, _value)
    found, total, token = _page(request, kind, rows, "pipeline versions")
    shown = {"pipeline_versions": [views.version(row) for row in found], "total_size": total}
    return Answer(body=(shown | ({"next_page_token": token} if token else {})) if found else {})


def _version(machine: Machine, version_id: str, before: str) -> Row:
    row = machine.store.get("versions", version_id)
    if row is None:
        raise missing("PipelineVersion", version_id, f"{before}Failed to get a pipeline version with id {version_id}: ")
    return row


def get_version(machine: Machine, request: Request, pipeline_id: str, version_id: str) -> Answer:
    """GET /pipelines/{id}/versions/{id}. The server does not look at the pipeline's id."""
    return Answer(body=views.version(_version(machine, version_id, f"Failed to get a pipeline version {version_id}: ")))


def delete_version(machine: Machine, request: Request, pipeline_id: str, version_id: str) -> Answer:
    """DELETE /pipelines/{id}/versions/{id}."""
    _version(machine, version_id, f"Failed to delete a pipeline version id {version_id}: ")
    machine.store.put("versions", version_id, None)
    return Answer()
