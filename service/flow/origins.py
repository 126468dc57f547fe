"""Lineage as it is asked for: everything that a thing came from, and everything that came of it.

A walk over the ledger's edges in both directions, bounded. Called by the CLI and the read API.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from service.ledger import Lineage
from service.records import Edge

MAX_NODES = 2_000


def trace(lineage: Lineage, node: str) -> dict[str, Any]:
    """The edges upstream and downstream of a node, nearest first; `truncated` when there are more."""
    up, more_up = _walk(node, lineage.into, lambda edge: edge.source)
    down, more_down = _walk(node, lineage.out_of, lambda edge: edge.target)
    return {
        "uri": node,
        "known": bool(up or down),
        "upstream": [_document(edge) for edge in up],
        "downstream": [_document(edge) for edge in down],
        "truncated": more_up or more_down,
    }


def _walk(
    start: str, edges_at: Callable[[str], Sequence[Edge]], beyond: Callable[[Edge], str]
) -> tuple[list[Edge], bool]:
    found: list[Edge] = []
    seen, waiting = {start}, deque([start])
    while waiting:
        for edge in _certain(edges_at(waiting.popleft())):
            found.append(edge)
            after = beyond(edge)
            if after not in seen:
                if len(seen) >= MAX_NODES:
                    return found, True
                seen.add(after)
                waiting.append(after)
    return found, False


def _certain(edges: Sequence[Edge]) -> Sequence[Edge]:
    """What was declared is left out where the run's own report says the same."""
    reported = {(edge.source, edge.target) for edge in edges if edge.relation != "declared"}
    return [edge for edge in edges if edge.relation != "declared" or (edge.source, edge.target) not in reported]


def _document(edge: Edge) -> dict[str, Any]:
    return {
        "source": edge.source,
        "relation": edge.relation,
        "target": edge.target,
        "run_key": edge.run_key,
        "data": dict(edge.data),
    }
