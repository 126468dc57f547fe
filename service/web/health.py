"""`/healthz`, `/readyz`, `/metrics`: the only looks that need no token."""

import threading
import time
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis import Redis
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, Response

from service import metrics
from service.errors import ServiceError
from service.ledger import Claim
from service.ports import App
from service.settings import BrokerSettings
from triggers.event import rfc3339

FRESH = 2.0  #: seconds for which an answer about readiness is reused


class Readiness:
    """What /readyz says, asked of the parts at most every two seconds, however often it is probed."""

    def __init__(self, app: App, broker: BrokerSettings) -> None:
        self._app = app
        self._redis = _client(broker)
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._answer: dict[str, Any] = {}

    def look(self) -> dict[str, Any]:
        """`status` is ready, degraded (works, but slower or with old rules) or unready (takes nothing)."""
        with self._lock:
            if time.monotonic() - self._at > FRESH:
                self._answer, self._at = self._ask(), time.monotonic()
            return self._answer

    def _ask(self) -> dict[str, Any]:
        in_force = self._app.rules.now()
        store, broker = self._store(), self._broker()
        degraded = broker == "away" or bool(in_force.problems)
        return {
            "status": "unready" if store != "writes" else "degraded" if degraded else "ready",
            "store": store,
            "broker": broker,
            "rules": {
                "hash": in_force.rules.hash,
                "count": len(in_force.rules.rules),
                "loaded_at": rfc3339(in_force.loaded_at),
                "problems": list(in_force.problems),
            },
            "backends": {name: backend.kind for name, backend in self._app.backends.items()},
        }

    def _store(self) -> str:
        now = self._app.clock.now()
        try:
            self._app.ledger.leases.take("readyz", Claim(holder=self._app.holder, now=now, until=now))
        except ServiceError as error:
            return error.detail
        return "writes"

    def _broker(self) -> str:
        if self._redis is None:
            return "none"
        try:
            self._redis.ping()
        except (RedisError, OSError):
            return "away"
        return "up"


def _client(broker: BrokerSettings) -> Redis | None:
    if broker.url is None:
        return None
    return Redis.from_url(broker.url.get_secret_value(), socket_timeout=1, socket_connect_timeout=1)


def router(app: App, readiness: Readiness) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        answer = readiness.look()
        return JSONResponse(answer, status_code=503 if answer["status"] == "unready" else 200)

    @routes.get("/metrics")
    def all_metrics() -> Response:
        for table, states in app.ledger.account.gauges().items():
            for state, count in states.items():
                metrics.rows.labels(table=table, state=state).set(count)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return routes
