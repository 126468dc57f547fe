"""A person wants an ended run again: by its backend under the same id, or anew as the next generation.

Called by `kfp-triggers runs retry`. The next generation is decided like any event, with the same `as_of`.
"""

from service.errors import Permanent
from service.flow.watch import revive
from service.lifecycle import TERMINAL, State
from service.ports import App
from service.records import DecisionRecord, RunRecord
from triggers.reason import Reason


def retry(app: App, item: RunRecord) -> None:
    """Let its backend take it up where it failed; Permanent with what to do where that cannot be."""
    if item.state not in {State.FAILED, State.CANCELLED} or not item.backend_id:
        raise Permanent(f"run {item.run_key} is {item.state}: only a failed or cancelled one can be taken up again")
    backend = app.backends.get(item.backend)
    if backend is None:
        raise Permanent(f"no backend is named {item.backend}")
    if item.lock and not app.ledger.queue.has_slot(item.lock, item.lock_max):
        raise Permanent(f"its lock {item.lock} is taken: wait for its holder, or start it anew, which waits by itself")
    backend.retry(item.backend_id)
    revive(app, item, Reason.RETRIED, "")


def anew(app: App, item: RunRecord) -> DecisionRecord:
    """Ask its rule again, for the next generation: computed anew, seen at the same instant."""
    if item.state not in TERMINAL:
        raise Permanent(f"run {item.run_key} is {item.state}: cancel it first")
    if item.subject.startswith("forgotten:"):
        raise Permanent(f"what run {item.run_key} was about is forgotten: it cannot be made anew")
    decision = app.ledger.decisions.again(item, app.clock.now())
    if decision.run_key:
        raise Permanent(f"run {item.run_key} was started anew already: see run {decision.run_key}")
    app.bell.ring("decisions.ask", decision.id)
    return decision
