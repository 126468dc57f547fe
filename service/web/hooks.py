"""`POST /hooks/{source}`: the one door for every sender, one answer policy for all.

New 202, known 200, both also for what no rule wants or nobody understands; 404, 405, 413 and 415 before
authentication; 401; 503 with Retry-After when it is not on the disk. Never 429 and never 4xx for an authentic
delivery: that would block MinIO's queue for ever, disable a GitLab hook, make Alertmanager drop the alert.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from service import metrics
from service.errors import ServiceError, Temporary
from service.failpoints import failpoint
from service.flow.receive import receive
from service.log import logger
from service.ports import App
from service.settings import ApiSettings
from service.web.problems import Problem, responses
from triggers.errors import NotAuthentic
from triggers.event import Delivery
from triggers.sources import SOURCES

MAX_DIGITS = 15  #: of a Content-Length
#: Of their own, so that deliveries which wait for the store keep nobody from a look; as many as one commit takes.
THREADS = 128
#: Bytes of bodies at once. Nobody is authenticated before his body is there: it is what a signature is of.
IN_MEMORY = 256 << 20

#: What OpenAPI says of a delivery that was taken, and of one that comes.
TAKEN = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "events": {"type": "array", "items": {"type": "string"}},
        "duplicate": {"type": "boolean"},
    },
    "required": ["id", "events", "duplicate"],
    "additionalProperties": False,
}
BODY: dict[str, Any] = {
    "content": {media: {"schema": {}} for kind in SOURCES.values() for media in sorted(kind.content_types)}
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"description": "New, and on stable storage", "content": {"application/json": {"schema": TAKEN}}},
    200: {"description": "All that it tells was known", "content": {"application/json": {"schema": TAKEN}}},
    **responses("4XX", 503),
}


class Room:
    """What is left of the memory for bodies; of the event loop's thread alone."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """For one body, as far as it has come, until it is done with."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._left:
                raise Problem(503, headers={"Retry-After": "2", "Connection": "close"})
            self._left -= size
            taken += size

        try:
            yield take
        finally:
            self._left += taken


class Shares:
    """Threads, memory, places in the queue: no source has more than half, so that a flood on one is not the others'."""

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._threads, self._room = CapacityLimiter(THREADS), Room(IN_MEMORY)
        self._own: dict[str, tuple[CapacityLimiter, Room]] = {}

    @contextmanager
    def body(self, source: str) -> Iterator[Callable[[int], None]]:
        """Memory for one body of this source, which is a configured one."""
        _, own = self._own.setdefault(source, (CapacityLimiter(THREADS // 2), Room(IN_MEMORY // 2)))
        with own.one() as take_own, self._room.one() as take:

            def both(size: int) -> None:
                take_own(size)
                take(size)

            yield both

    async def thread(self, source: str, do: Callable[[], JSONResponse]) -> JSONResponse:
        """Done in a thread, as soon as the source may have one; 503 when too many wait for theirs."""
        limiter, _ = self._own[source]
        waiting = sum(one.statistics().tasks_waiting for one, _ in self._own.values())
        if waiting >= self._queue or 2 * limiter.statistics().tasks_waiting >= self._queue:
            raise Problem(503, headers={"Retry-After": "2"})
        async with limiter:
            return await run_sync(do, limiter=self._threads)


def router(app: App, settings: ApiSettings) -> APIRouter:
    """The route over an App."""
    routes = APIRouter()
    shares = Shares(settings.queue)

    @routes.post("/hooks/{source}", status_code=202, responses=ANSWERS, openapi_extra={"requestBody": BODY})
    async def hook(source: str, request: Request) -> JSONResponse:
        # In a thread: to take up changed files costs reads and a write, and the loop serves everybody.
        in_force = await run_in_threadpool(app.rules.now)
        configured = in_force.sources.get(source)
        if configured is None:
            raise Problem(404)
        kind = SOURCES[configured.type]
        try:
            _check_encoding(request, kind.content_types)
            with shares.body(source) as take:
                body = await _body(request, kind.body_limit, settings.body_timeout, take)
                started = time.perf_counter()
                delivery = Delivery(
                    source=source,
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=body,
                    received_at=app.clock.now(),
                )
                answer = await shares.thread(source, partial(_take, app, delivery))
        except Problem as problem:
            metrics.refusals.labels(source=source, status=str(problem.status)).inc()
            raise
        metrics.ingest_seconds.labels(source=source).observe(time.perf_counter() - started)
        return answer

    return routes


def _check_encoding(request: Request, content_types: frozenset[str]) -> None:
    """Compression is refused: it is how a small body becomes a large one."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"} or content_type not in content_types:
        raise Problem(415, headers={"Connection": "close"})


async def _body(request: Request, limit: int, timeout: float, take: Callable[[int], None]) -> bytes:
    """The whole body, refused as soon as it is too large, whatever its Content-Length says; `take` is told of it."""
    declared = request.headers.get("content-length", "0")
    if len(declared) > MAX_DIGITS or (declared.isdecimal() and int(declared) > limit):
        raise Problem(413, headers={"Connection": "close"})
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for piece in request.stream():
                take(len(piece))
                body += piece
                if len(body) > limit:
                    raise Problem(413, headers={"Connection": "close"})
    except (TimeoutError, ClientDisconnect):  # who went away hears no answer; it is counted all the same
        raise Problem(408, headers={"Connection": "close"}) from None
    return bytes(body)


def _take(app: App, delivery: Delivery) -> JSONResponse:
    try:
        accepted = receive(app, delivery)
    except NotAuthentic:
        logger.warning("delivery_not_authentic", source=delivery.source)
        raise Problem(401) from None
    except ServiceError as error:
        delay = error.delay if isinstance(error, Temporary) else 5
        logger.error("delivery_not_stored", source=delivery.source, detail=error.detail)
        raise Problem(503, headers={"Retry-After": str(max(1, round(delay)))}) from error
    except Exception as error:
        logger.exception("delivery_failed", source=delivery.source)
        raise Problem(503, headers={"Retry-After": "10"}) from error
    failpoint("door.before_2xx")
    return JSONResponse(
        {"id": accepted.delivery_id, "events": list(accepted.event_ids), "duplicate": accepted.duplicate},
        status_code=200 if accepted.duplicate else 202,
    )
