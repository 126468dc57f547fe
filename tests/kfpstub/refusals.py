"""How the server says no: gRPC codes as the gateway shows them, and the uploads' other body. Handlers raise these."""

from typing import Any

INVALID, NOT_FOUND, EXISTS, DENIED, ABORTED, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 7, 10, 13, 16
STATUS = {INVALID: 400, NOT_FOUND: 404, EXISTS: 409, DENIED: 403, ABORTED: 409, INTERNAL: 500, UNAUTHENTICATED: 401}


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, body: Any, content_type: str = "application/json") -> None:
        super().__init__(body)
        self.status = status
        self.body = body
        self.content_type = content_type


def refused(code: int, message: str, detail: str) -> Refused:
    """The usual body; what went wrong inside the server is hidden in `details`, not in `message`."""
    if code == INTERNAL:
        detail = "Internal Server Error"
    status = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": detail}
    return Refused(STATUS[code], {"code": code, "message": message, "details": [status]})


def malformed(message: str) -> Refused:
    """The gateway itself could not read the body: there are no details."""
    return Refused(400, {"code": INVALID, "message": f"proto: {message}"})


def upload_refused(status: int, message: str, content_type: str = "application/json") -> Refused:
    """The upload endpoints are not behind the gateway: no code, and a Go stack for details."""
    stack = "github.com/kubeflow/pipelines/backend/src/apiserver/server.(*PipelineUploadServer)"
    return Refused(status, {"error_message": message, "error_details": f"{message}\n{stack}"}, content_type)


def missing(kind: str, name: str, prefix: str) -> Refused:
    """404. The prefix is what each endpoint puts before the same words."""
    gone = f"{kind} {name} not found"
    return refused(NOT_FOUND, f"{prefix}ResourceNotFoundError: {gone}", gone)
