"""Errors as RFC 9457 problem details: constant words, nothing of the input in them."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

TITLES = {
    400: "The request cannot be understood",
    401: "The credential is missing or wrong",
    404: "There is nothing here",
    405: "This address does not take this method",
    408: "The body did not arrive in time",
    413: "The body is larger than this source may send",
    415: "This content type or encoding is not taken",
    500: "The service failed",
    503: "The service cannot take it now: send it again",
}

#: What OpenAPI says of them.
DOCUMENT = {
    "type": "object",
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
    },
    "required": ["type", "title", "status"],
    "additionalProperties": False,
}


class Problem(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, *, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = dict(headers or {})
        super().__init__(TITLES[status])


def response(status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem document of a status. A 401 names the scheme, as RFC 9110 wants it."""
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(
        {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status},
        status_code=status,
        media_type="application/problem+json",
        headers=challenge | dict(headers or {}),
    )


def responses(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these are problem documents."""
    content = {"application/problem+json": {"schema": DOCUMENT}}
    said = {status: TITLES[status] if isinstance(status, int) else "The request is refused" for status in statuses}
    return {status: {"description": words, "content": content} for status, words in said.items()}
