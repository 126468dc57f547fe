"""`GET /api/v1/…`: events, decisions, runs, observations and lineage, a page at a time. Looks only; changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Query as Param
from fastapi.security import HTTPBearer

from service.flow.origins import trace
from service.ports import App
from service.records import Query, document
from service.web.problems import Problem, responses

#: What OpenAPI says of a listing.
PAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, the newest first; `next` is the cursor of the one after it",
        "content": {
            "application/json": {
                "schema": {
                    "properties": {
                        "items": {"type": "array", "items": {"type": "object"}},
                        "next": {"type": "string"},
                    },
                    "required": ["items"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


def _query(
    since: datetime | None = None,
    until: datetime | None = None,
    source: str | None = None,
    rule: str | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Param(ge=1, le=500)] = 50,
) -> Query:
    if (since and since.tzinfo is None) or (until and until.tzinfo is None):
        raise Problem(400)
    return Query(since=since, until=until, source=source, rule=rule, state=state, cursor=cursor, limit=limit)


Page = Annotated[Query, Depends(_query)]


def _sayable(request: Request) -> None:
    """PostgreSQL has no NUL in text: nothing is called so."""
    if "\x00" in request.scope["path"]:
        raise Problem(404)
    if b"%00" in request.scope["query_string"]:
        raise Problem(400)


def router(app: App) -> APIRouter:
    """The routes over an App."""
    # The credential itself is `server.DefaultDeny`'s: this is what OpenAPI says of it.
    checks = [Depends(HTTPBearer(auto_error=False)), Depends(_sayable)]
    routes = APIRouter(prefix="/api/v1", dependencies=checks, responses=responses("4XX", 503))
    ledger = app.ledger

    @routes.get("/deliveries", responses=PAGE)
    def deliveries(query: Page) -> dict[str, Any]:
        return _page(query, ledger.events.deliveries)

    @routes.get("/events", responses=PAGE)
    def events(query: Page) -> dict[str, Any]:
        return _page(query, ledger.events.list)

    @routes.get("/decisions", responses=PAGE)
    def decisions(query: Page) -> dict[str, Any]:
        return _page(query, ledger.decisions.list)

    @routes.get("/runs", responses=PAGE)
    def runs(query: Page) -> dict[str, Any]:
        return _page(query, ledger.runs.list)

    @routes.get("/observations", responses=PAGE)
    def observations(
        query: Page,
        model: str | None = None,
        kind: str | None = None,
        version: Annotated[int | None, Param(ge=0, lt=2**31)] = None,
    ) -> dict[str, Any]:
        return _page(query, lambda page: ledger.observations.list(page, model=model, kind=kind, version=version))

    @routes.get("/deliveries/{delivery_id}")
    def delivery(delivery_id: str) -> dict[str, Any]:
        return _found(ledger.events.delivery(delivery_id))

    @routes.get("/events/{event_id}")
    def event(event_id: str) -> dict[str, Any]:
        decided = [document(item) for item in ledger.decisions.of_event(event_id)]
        return _found(ledger.events.get(event_id)) | {"decisions": decided}

    @routes.get("/decisions/{decision_id}")
    def decision(decision_id: str) -> dict[str, Any]:
        return _found(ledger.decisions.get(decision_id))

    @routes.get("/runs/{run_key}")
    def run(run_key: str) -> dict[str, Any]:
        found = ledger.runs.get(run_key)
        moves = [document(move) for move in ledger.runs.transitions(run_key)]
        doubles = [document(one) for one in ledger.runs.doubles() if one.run_key == run_key]
        more = {"link": app.link(found) if found else "", "doubles": doubles, "transitions": moves}
        return _found(found) | more

    @routes.get("/promotions", responses=PAGE)
    def promotions(query: Page, model: str | None = None) -> dict[str, Any]:
        return _page(query, lambda asked: ledger.promotions.list(asked, model))

    @routes.get("/promotions/{promotion_id}")
    def promotion(promotion_id: str) -> dict[str, Any]:
        return _found(ledger.promotions.get(promotion_id))

    @routes.get("/lineage")
    def lineage(uri: str) -> dict[str, Any]:
        return trace(ledger.lineage, uri)

    return routes


def _found(record: object | None) -> dict[str, Any]:
    if record is None:
        raise Problem(404)
    return document(record)


def _page(query: Query, listing: Callable[[Query], Sequence[Any]]) -> dict[str, Any]:
    """One page; `next` is the cursor of the one after it, absent at the end."""
    found = listing(replace(query, limit=query.limit + 1))
    items = found[: query.limit]
    page: dict[str, Any] = {"items": [document(item) for item in items]}
    if len(found) > query.limit:
        page["next"] = items[-1].id
    return page
