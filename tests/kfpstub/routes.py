"""Which endpoint is whose. The pattern is also the name under which requests are counted."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from kfpstub import experiments, pipelines, runs, uploads
from kfpstub.machine import Answer, Machine, Request
from kfpstub.refusals import Refused

V2 = "/apis/v2beta1"


def healthz(machine: Machine, request: Request) -> Answer:
    """The same with and without the prefix."""
    multi = machine.settings.multi_user
    return Answer(
        body={"commit_sha": "unknown", "tag_name": "unknown", "multi_user": multi, "pipeline_store": "database"}
    )


ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", "/healthz", healthz),
    ("GET", f"{V2}/healthz", healthz),
    ("POST", f"{V2}/experiments", experiments.create),
    ("GET", f"{V2}/experiments", experiments.listing),
    ("GET", f"{V2}/experiments/{{id}}", experiments.get),
    ("DELETE", f"{V2}/experiments/{{id}}", experiments.delete),
    ("POST", f"{V2}/experiments/{{id}}:archive", experiments.archive),
    ("POST", f"{V2}/experiments/{{id}}:unarchive", experiments.unarchive),
    ("POST", f"{V2}/pipelines/upload", uploads.pipeline),
    ("POST", f"{V2}/pipelines/upload_version", uploads.version),
    ("POST", f"{V2}/pipelines", pipelines.create),
    ("GET", f"{V2}/pipelines", pipelines.listing),
    ("GET", f"{V2}/pipelines/names/{{name}}", pipelines.by_name),
    ("GET", f"{V2}/pipelines/{{id}}", pipelines.get),
    ("DELETE", f"{V2}/pipelines/{{id}}", pipelines.delete),
    ("GET", f"{V2}/pipelines/{{id}}/versions", pipelines.versions),
    ("GET", f"{V2}/pipelines/{{id}}/versions/{{version}}", pipelines.get_version),
    ("DELETE", f"{V2}/pipelines/{{id}}/versions/{{version}}", pipelines.delete_version),
    ("POST", f"{V2}/runs", runs.create),
    ("GET", f"{V2}/runs", runs.listing),
    ("GET", f"{V2}/runs/{{id}}", runs.get),
    ("DELETE", f"{V2}/runs/{{id}}", runs.delete),
    ("POST", f"{V2}/runs/{{id}}:terminate", runs.terminate),
    ("POST", f"{V2}/runs/{{id}}:retry", runs.retry),
    ("POST", f"{V2}/runs/{{id}}:archive", runs.archive),
    ("POST", f"{V2}/runs/{{id}}:unarchive", runs.unarchive),
    ("GET", "/apis/v1beta1/runs/{id}", runs.get_v1),
)

_COMPILED = [
    (method, pattern, re.compile(re.sub(r"\{\w+\}", "([^/:]+)", pattern)), handler)
    for method, pattern, handler in ROUTES
]


def endpoint(method: str, path: str) -> tuple[str, Callable[[Machine, Request], Answer]]:
    """Its pattern and what serves it."""
    for verb, pattern, compiled, handler in _COMPILED:
        found = compiled.fullmatch(path) if verb == method else None
        if found:
            return f"{verb} {pattern}", _bound(handler, [unquote(one) for one in found.groups()])
    return f"{method} unknown", _unknown


def _bound(handler: Callable[..., Answer], names: list[str]) -> Callable[[Machine, Request], Answer]:
    def bound(machine: Machine, request: Request) -> Answer:
        return handler(machine, request, *names)

    return bound


def _unknown(machine: Machine, request: Request) -> Any:
    raise Refused(404, {"code": 5, "message": "Not Found"})
