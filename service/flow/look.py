"""What a rule wants to know of the world before it decides, fetched through the ports.

Each answer, or the reason why there is none, goes into the decision's row. Called by `service.flow.decide`; which
lookups there are is `triggers.rules.decision.plan`'s word.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from service.errors import Permanent, Temporary
from service.ports import App
from triggers.reason import Reason
from triggers.rules.decision import LookupProblem
from triggers.rules.model import GitHead, LookupRequest, ModelAlias, ObjectRows

Found = Mapping[str, Any] | LookupProblem


def look_up(app: App, wanted: Mapping[str, LookupRequest | LookupProblem]) -> dict[str, Found]:
    """All of a rule's lookups by name."""
    return {name: item if isinstance(item, LookupProblem) else _one(app, item) for name, item in wanted.items()}


def _one(app: App, request: LookupRequest) -> Found:
    try:
        if isinstance(request, ModelAlias):
            return _model(app, request)
        if isinstance(request, ObjectRows):
            return {"rows": app.objects.rows(request.uri, request.version_id, at_most=request.at_most)}
        return _git_head(app, request)
    except Temporary as error:
        delay = timedelta(seconds=max(error.delay, 1))
        return LookupProblem(reason=Reason.LOOKUP_UNAVAILABLE, detail=error.detail, delay=delay)
    except Permanent as error:
        return LookupProblem(reason=Reason.LOOKUP_FAILED, detail=error.detail)


def _model(app: App, request: ModelAlias) -> Mapping[str, Any]:
    found = app.registry.by_alias(request.name, request.alias)
    return {"name": found.name, "alias": request.alias, "version": found.version, "run_id": found.run_id}


def _git_head(app: App, request: GitHead) -> Mapping[str, Any]:
    """The branch's newest commit that a delivery told us of: our own log, no call to the forge."""
    newest = app.ledger.events.head(request.source, request.repository, request.branch)
    if newest is None:
        raise Permanent(
            f"no push to {request.branch} of {request.repository} has arrived by source {request.source} yet"
        )
    return {"url": newest.event.data["clone_url"], "sha": newest.event.data["sha"]}


def plain(found: Mapping[str, Found]) -> dict[str, Any]:
    """As the decision's row keeps it."""
    return {
        name: {"problem": item.reason, "detail": item.detail} if isinstance(item, LookupProblem) else dict(item)
        for name, item in found.items()
    }
