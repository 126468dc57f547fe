"""`/healthz`, `/readyz`, `/metrics`: the only looks that need no token."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis import Redis
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service import metrics
from service.errors import ServiceError
from service.flow.reconcile import scanned
from service.ledger import Claim
from service.lifecycle import State
from service.log import logger
from service.ports import App
from service.records import EventState, PromotionState
from service.settings import BrokerSettings
from service.web.observed import tell_observations
from triggers.event import rfc3339
from triggers.rules.decision import Outcome

_telling = threading.Lock()  # gauges are emptied and filled anew: nobody may read them in between
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
            # The detail may name hosts and users, and this answer needs no token.
            logger.error("store_does_not_write", detail=error.detail)
            return "does not write"
        except Exception:
            logger.exception("store_does_not_write")
            return "does not write"
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


#: Every state that a row may have: one that no row has any more must fall to 0, not stay where it was.
STATES: Mapping[str, Sequence[str]] = {
    "event": tuple(EventState),
    "decision": tuple(Outcome),
    "run": tuple(State),
    "promotion": tuple(PromotionState),
}


def _count_rows(app: App) -> None:
    """Set the gauges from the store; without it they go, and what this process counted is told all the same."""
    try:
        found = app.ledger.account.gauges()
    except ServiceError as error:
        logger.error("rows_not_counted", detail=error.detail)
        metrics.rows.clear()
        metrics.doubles.clear()
        return
    for table, states in STATES.items():
        for state in states:
            metrics.rows.labels(table=table, state=state).set(found[table].get(state, 0))
    for backend in {*app.backends, *found["double"]}:
        metrics.doubles.labels(backend=backend).set(found["double"].get(backend, 0))


def _tell_given_up(app: App) -> None:
    """Which of the rules in force that count their tries have none left. A rule's name comes from a file of ours."""
    try:
        found = app.ledger.decisions.given_up()
    except ServiceError as error:
        logger.error("tries_not_counted", detail=error.detail)
        found = None
    metrics.rule_given_up.clear()
    for name, rule in app.rules.now().rules.rules.items():
        if rule.limits.tries is not None and found is not None:
            metrics.rule_given_up.labels(rule=name).set(name in found)


def _tell_scans(app: App) -> None:
    """How the scans of the buckets that sources list go. Their names come from a file of ours."""
    told = (metrics.scan_objects, metrics.scan_found, metrics.scan_seconds, metrics.scan_ended_at, metrics.scan_failing)
    for gauge in told:
        gauge.clear()
    listed = {(source.name, bucket) for source, config in scanned(app) for bucket in config.buckets}
    try:
        found = [one for one in app.ledger.scans.list() if (one.source, one.bucket) in listed]
    except ServiceError as error:
        logger.error("scans_not_told", detail=error.detail)
        return
    for one in found:
        ended = one.ended_at.timestamp() if one.ended_at else 0
        for gauge, value in zip(told, (one.seen, one.found, one.seconds, ended, bool(one.problem)), strict=True):
            gauge.labels(source=one.source, bucket=one.bucket).set(value)


def router(app: App, readiness: Readiness) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", responses={503: {"description": "It takes nothing", "content": {"application/json": {}}}})
    def readyz() -> JSONResponse:
        answer = readiness.look()
        return JSONResponse(answer, status_code=503 if answer["status"] == "unready" else 200)

    @routes.get("/metrics", response_class=PlainTextResponse)
    def all_metrics() -> Response:
        with _telling:
            _count_rows(app)
            tell_observations(app)
            _tell_given_up(app)
            _tell_scans(app)
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return routes
