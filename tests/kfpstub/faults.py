"""What goes wrong on request. `POST /_stub/faults` adds to `machine.faults`; every request passes through here."""

import re
import time
from collections.abc import Callable
from typing import Any

from kfpstub.machine import Answer, Machine, Request
from kfpstub.store import Row

Serve = Callable[[Request], Answer]


class HangUp(Exception):
    """The connection is closed without an answer, or in the midst of it."""

    def __init__(self, begun: Answer | None = None) -> None:
        super().__init__()
        self.begun = begun


def close(fault: Row, request: Request, serve: Serve) -> Answer:
    """Nothing happens, nothing is answered."""
    raise HangUp


def drop_answer(fault: Row, request: Request, serve: Serve) -> Answer:
    """It happens, and nothing is answered."""
    serve(request)
    raise HangUp


def cut_answer(fault: Row, request: Request, serve: Serve) -> Answer:
    """It happens, and half of it is answered."""
    raise HangUp(serve(request))


def hang_before(fault: Row, request: Request, serve: Serve) -> Answer:
    """It happens `seconds` later, whether the client still waits or not. A small number makes slow answers."""
    time.sleep(fault["seconds"])
    return serve(request)


def hang_after(fault: Row, request: Request, serve: Serve) -> Answer:
    """It happens at once and is answered `seconds` later."""
    answer = serve(request)
    time.sleep(fault["seconds"])
    return answer


def status(fault: Row, request: Request, serve: Serve) -> Answer:
    """`status` with `body` (JSON, or a text), `content_type`, `headers`; with `create`, it happens all the same."""
    if fault.get("create"):
        serve(request)
    body = fault.get("body", {"code": 13, "message": "internal error"})
    kind = fault.get("content_type", "application/json")
    return Answer(fault.get("status", 500), body, dict(fault.get("headers", {})), kind)


def throttle(fault: Row, request: Request, serve: Serve) -> Answer:
    """429 with `Retry-After: seconds`."""
    return Answer(429, {"code": 8, "message": "too many requests"}, {"Retry-After": str(fault["seconds"])})


def unauthorized(fault: Row, request: Request, serve: Serve) -> Answer:
    """401 to whoever does not present `token`."""
    if request.headers.get("authorization") == f"Bearer {fault['token']}":
        return serve(request)
    return Answer(401, {"code": 16, "message": "Unauthenticated: the token has expired"})


def login_page(fault: Row, request: Request, serve: Serve) -> Answer:
    """200, and a page for a person."""
    page = b"<!doctype html><html><title>Log in</title><form method=post action=/dex/auth></form></html>"
    return Answer(200, page, {}, "text/html; charset=utf-8")


def redirect(fault: Row, request: Request, serve: Serve) -> Answer:
    """302 to the page for a person."""
    return Answer(302, b"", {"Location": "/dex/auth"}, "text/html; charset=utf-8")


ANSWERS: dict[str, Callable[[Row, Request, Serve], Answer]] = {
    one.__name__: one
    for one in (
        close,
        drop_answer,
        cut_answer,
        hang_before,
        hang_after,
        status,
        throttle,
        unauthorized,
        login_page,
        redirect,
    )
}
# These change how a list or a creation is served: the key of `Request.bend`, and where its value comes from.
BENDS: dict[str, tuple[str, str | None]] = {
    "stale_list": ("stale", "seconds"),
    "partial_list": ("partial", "every"),
    "page_clamp": ("page_clamp", "size"),
    "ignore_filter": ("ignore_filter", None),
    "twice": ("twice", None),
    "gone": ("gone", None),
}
MODES = {*ANSWERS, *BENDS}


def filled(fault: Row) -> Row:
    """A fault as posted, with its gaps filled; ValueError for one that nobody knows."""
    if fault.get("mode") not in MODES:
        raise ValueError(f"mode {fault.get('mode')!r} is none of {sorted(MODES)}")
    ever = fault["mode"] == "unauthorized"
    return {"match": {}, "times": -1 if ever else 1, "after": 0, "seconds": 1, "hits": 0} | fault


def answer(machine: Machine, request: Request, serve: Serve) -> Answer:
    """The request's answer under the faults that fit it: all that bend it, and the first of the others."""
    hits = _taken(machine, request)
    bend: dict[str, Any] = {}
    for fault in hits:
        if fault["mode"] in BENDS:
            name, source = BENDS[fault["mode"]]
            bend[name] = True if source is None else fault[source]
    bent = Request(request.method, request.path, request.query, request.headers, request.body, bend)
    first = next((fault for fault in hits if fault["mode"] in ANSWERS), None)
    return serve(bent) if first is None else ANSWERS[first["mode"]](first, bent, serve)


def _taken(machine: Machine, request: Request) -> list[Row]:
    """Those that fit, each counted down."""
    found = []
    with machine.store.lock:
        for fault in machine.faults:
            if not fault["times"] or not _fits(fault["match"], request):
                continue
            fault["hits"] += 1
            if fault["hits"] > fault["after"]:
                fault["times"] -= 1
                found.append(fault)
    return found


def _fits(match: Row, request: Request) -> bool:
    if match.get("method", request.method) != request.method:
        return False
    if not re.search(match.get("path", ""), request.path):
        return False
    return "body" not in match or re.search(match["body"], request.body.decode(errors="replace")) is not None
