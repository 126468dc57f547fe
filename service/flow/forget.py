"""A person wants a name forgotten: an object's, or any other subject of events.

Called by `kfp-triggers forget`. What is under way on it is left alone: a run that is submitted with half of its
parameters hashed would fail, or worse.
"""

from service.errors import Permanent
from service.ledger import Forgotten
from service.ports import App
from service.records import Handling

MOST = 5  #: of what is under way that are named


def forget(app: App, name: str, by: str, why: str) -> Forgotten:
    """Take it out of every row that names it. Permanent with what to do while anything is under way on it."""
    if going := app.ledger.forgetting.unfinished(name):
        more = f", and {len(going) - MOST} more" if len(going) > MOST else ""
        raise Permanent(
            f"not now: {', '.join(going[:MOST])}{more}; wait for it, or end it by `kfp-triggers runs cancel KEY`"
        )
    done = Handling(what="subject", key="", action="forgotten", by=by, why=why, at=app.clock.now())
    return app.ledger.forgetting.forget(name, done)
