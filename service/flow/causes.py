"""Which rules' runs led to an event: what the loop guard looks at.

An object that a run declared or reported as its output, or that carries our run key in its metadata, inherits that
run's chain. Called by `service.flow.decide`.
"""

from collections.abc import Sequence

from service.ledger import Ledger
from service.records import EventRecord


def causes_of(ledger: Ledger, item: EventRecord) -> Sequence[str]:
    """The names of the rules, oldest first; empty for what came from outside."""
    key = item.event.run_key or _maker(ledger, item)
    maker = ledger.runs.get(key) if key else None
    return tuple(maker.causes) if maker else ()


def _maker(ledger: Ledger, item: EventRecord) -> str:
    """The last run that wrote, or said it would write, the event's object."""
    uri = item.event.data.get("object", "")
    if not isinstance(uri, str) or not uri:
        return ""
    made = [edge.run_key for edge in ledger.lineage.into(uri) if edge.relation in {"wrote", "declared"}]
    return made[-1] if made else ""
