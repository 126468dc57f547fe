"""Where each rule in force stands: its last decision and run, what holds it now, and whether it has given up.

Called by `kfp-triggers rules show`. Looks only.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.ledger import Ledger
from service.ports import App
from service.records import Query
from triggers.rules.model import Rule


def standings(app: App) -> list[dict[str, Any]]:
    """One entry a rule, in name order, with stable keys; what there is not is None."""
    given_up = app.ledger.decisions.given_up()
    return [_standing(app.ledger, rule, given_up) for rule in app.rules.now().rules.rules.values()]


def _standing(ledger: Ledger, rule: Rule, given_up: Mapping[str, datetime]) -> dict[str, Any]:
    decision = next(iter(ledger.decisions.list(Query(rule=rule.name, limit=1))), None)
    run = next(iter(ledger.runs.list(Query(rule=rule.name, limit=1))), None)
    limits = rule.limits
    return {
        "rule": rule.name,
        "description": rule.description,
        "file": f"{rule.file}:{rule.line}",
        "mode": str(rule.mode),
        "trigger": f"{rule.trigger.event} of {rule.trigger.source}",
        "pipeline": rule.run.pipeline,
        "backend": rule.run.backend,
        "lock": limits.lock.source if limits.lock else None,
        "cooldown": str(limits.cooldown) if limits.cooldown else None,
        "tries": limits.tries,
        "budget": f"{limits.budget.runs} per {limits.budget.per}" if limits.budget else None,
        "repeat": str(rule.trigger.repeat) if rule.trigger.repeat else None,
        "last_decided_at": decision.decided_at if decision else None,
        "last_outcome": decision.outcome if decision else None,
        "last_reason": decision.reason if decision else None,
        "last_detail": decision.detail if decision else None,
        "asked_again_at": decision.due_at if decision else None,
        "last_run": run.run_key if run else None,
        "last_run_at": run.created_at if run else None,
        "last_state": str(run.state) if run else None,
        "given_up_since": given_up.get(rule.name),
    }
