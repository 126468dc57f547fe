"""Uploads of packages: multipart in, YAML of one document or two, and refusals in a shape of their own."""

import email.parser
import email.policy
import uuid
from typing import Any

import yaml
from kfpstub import inputs, pipelines, views
from kfpstub.machine import Answer, Machine, Request
from kfpstub.refusals import upload_refused
from kfpstub.store import Row

# libyaml where it is there: a big package is read ten times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def pipeline(machine: Machine, request: Request) -> Answer:
    """POST /pipelines/upload: a pipeline, and its first version under the same name."""
    filename, text = _file(request)
    query = request.query
    name = query.get("name") or query.get("display_name") or filename
    with machine.store.lock:
        if pipelines.named(machine, name, query.get("namespace", "")):
            raise upload_refused(409, "Failed to create a pipeline and a pipeline version")
        spec, platform = _specification(text)
        row = pipelines.made(machine, name, query.get("description", ""), query.get("namespace", ""))
        _made(machine, row, name, query.get("description", ""), (spec, platform))
    return Answer(body=views.pipeline(row))


def version(machine: Machine, request: Request) -> Answer:
    """POST /pipelines/upload_version."""
    filename, text = _file(request)
    query = request.query
    name = query.get("name") or query.get("display_name") or filename
    with machine.store.lock:
        parent = machine.store.get("pipelines", query.get("pipelineid", ""))
        if parent is None:
            raise upload_refused(400, "Failed to create a pipeline version", "text/plain; charset=utf-8")
        taken = [one["name"] for one in machine.store.all("versions") if one["pipeline_id"] == parent["pipeline_id"]]
        if name in taken:
            raise upload_refused(409, "Failed to create a pipeline version")
        row = _made(machine, parent, name, query.get("description", ""), _specification(text))
    return Answer(body=views.version(row))


def _made(machine: Machine, parent: Row, name: str, description: str, documents: tuple[Any, Any]) -> Row:
    row = {
        "pipeline_version_id": str(uuid.uuid4()),
        "pipeline_id": parent["pipeline_id"],
        "name": name,
        "display_name": name,
        "description": description,
        "created": machine.clock.now(),
        "spec": documents[0],
        "platform": documents[1],
    }
    machine.store.put("versions", row["pipeline_version_id"], row)
    return row


def _file(request: Request) -> tuple[str, str]:
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            payload = part.get_payload(decode=True)
            return str(part.get_filename()), payload.decode() if isinstance(payload, bytes) else ""
    raise upload_refused(400, "Failed to read pipeline spec file")


def _specification(text: str) -> tuple[Any, Any]:
    """The pipeline, and the platforms' settings if a second document holds them."""
    try:
        documents = [one for one in yaml.load_all(text, Loader=LOADER) if one]
    except yaml.YAMLError:
        documents = []
    found = [one for one in documents if isinstance(one, dict) and "pipelineInfo" in one]
    if len(found) != 1:
        raise upload_refused(400, "unknown template format")
    platform = next((one for one in documents if "platforms" in one), None)
    return inputs.as_doubles(found[0]), inputs.as_doubles(platform)
