"""Which labels a training asks for: from when to when, how many, and which share of them tests. Called by component.py.

Nothing heavy is imported here: what cannot be done is said before Feast is.
"""

from dataclasses import dataclass
from datetime import datetime

from pipelines.errors import PipelineError
from pipelines.instant import parse_instant


@dataclass(frozen=True)
class Window:
    """Labels with `since < event_timestamp <= as_of`, of these at most the `newest`.

    No `since` is all of history, no `newest` (0) is all of the window. The newest `test_share` of them (0 to 1, both
    excluded) is the test.
    """

    since: datetime | None
    as_of: datetime
    newest: int = 0
    test_share: float = 0.2

    @property
    def told(self) -> str:
        """In words, for whoever finds it empty."""
        start = self.since.isoformat() if self.since else "the beginning"
        return f"after {start} up to {self.as_of.isoformat()}"


def window(since: str, as_of: str, newest: int = 0, test_share: float = 0.2) -> Window:
    """The window that the parameters name."""
    start = parse_instant(since, "since") if since else None
    chosen = Window(start, parse_instant(as_of, "as_of"), int(newest), test_share)
    if chosen.since and chosen.since >= chosen.as_of:
        raise PipelineError(f"the window is empty: since ({since}) is not before as_of ({as_of})")
    if chosen.newest < 0:
        raise PipelineError(f"newest is a number of labels, or 0 for all of the window; not {newest}")
    if not 0 < chosen.test_share < 1:
        raise PipelineError(f"test_share is a share between 0 and 1, such as 0.2; not {test_share}")
    return chosen
