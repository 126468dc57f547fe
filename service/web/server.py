"""`kfp-triggers api`: the routes put together, default-deny in front of them, uvicorn under them."""

import hmac
import re

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.duties import Duties
from service.errors import Temporary
from service.log import logger
from service.ports import App
from service.settings import Settings
from service.web import health, hooks, problems, read
from service.web.connections import bounded, room

# Exact paths: a prefix or suffix test would let `/api/v1/x/healthz` through.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
HOOK = re.compile(r"/hooks/[^/]+")


class DefaultDeny:
    """Every path but the open ones and the hooks (which authenticate by source) needs the bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The check, before any routing."""
        if scope["type"] == "lifespan" or self._allowed(scope):
            await self._app(scope, receive, send)
        else:
            await problems.response(401)(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in OPEN or HOOK.fullmatch(path):
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return bool(self._expected) and hmac.compare_digest(given, self._expected)


def application(app: App, settings: Settings) -> ASGIApp:
    """The ASGI application over an App."""
    web = FastAPI(
        title="kfp-triggers",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,  # a redirect would repeat the Host that the request named
    )
    web.include_router(hooks.router(app, settings.api))
    web.include_router(health.router(app, health.Readiness(app, settings.broker)))
    web.include_router(read.router(app))

    @web.exception_handler(problems.Problem)
    def problem(_request: Request, error: problems.Problem) -> JSONResponse:
        return problems.response(error.status, error.headers)

    @web.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> JSONResponse:
        return problems.response(error.status_code, error.headers)

    @web.exception_handler(RequestValidationError)
    def invalid(_request: Request, _error: RequestValidationError) -> JSONResponse:
        return problems.response(400)

    @web.exception_handler(Temporary)
    def not_now(_request: Request, error: Temporary) -> JSONResponse:
        return problems.response(503, {"Retry-After": str(max(1, round(error.delay)))})

    @web.exception_handler(Exception)
    def failed(_request: Request, _error: Exception) -> JSONResponse:
        return problems.response(500)

    return DefaultDeny(web, settings.api.token.get_secret_value() if settings.api.token else "")


def serve(app: App, settings: Settings) -> None:
    """Serve until told to stop; what is in flight gets ten seconds."""
    app.rules.now()
    duties = Duties(app, settings.pace)
    config = uvicorn.Config(
        application(app, settings),
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=30,
        http=bounded(settings.api.body_timeout, room()),
    )
    logger.info("api_listens", host=settings.api.host, port=settings.api.port)
    try:
        uvicorn.Server(config).run()
    finally:
        duties.close()
