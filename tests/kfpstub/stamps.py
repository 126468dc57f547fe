"""Time as the API writes it, with a resolution of one second, and the clock that the stub lives by."""

import time
from datetime import UTC, datetime


def stamp(seconds: float) -> str:
    """RFC 3339, whole seconds; 0 is the 1970 of a run that has not ended."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> int:
    """The other way round."""
    return int(datetime.fromisoformat(text).timestamp())


class Clock:
    """The machine's, until a test sets it: then it stands still, and moves only when told to."""

    def __init__(self) -> None:
        self._still: float | None = None
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead if self._still is None else self._still

    def set(self, at: float) -> None:
        """Stand still at this moment."""
        self._still = at

    def advance(self, by: float) -> None:
        """Jump ahead, still or going."""
        if self._still is None:
            self._ahead += by
        else:
            self._still += by

    def reset(self) -> None:
        """The machine's again."""
        self._still, self._ahead = None, 0.0
