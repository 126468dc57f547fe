"""What the stub remembers: rows by kind, guarded by one lock, and journalled so that a restart finds them again.

Every handler works on it. It knows nothing of HTTP nor of what a row means.
"""

import json
import threading
from pathlib import Path
from typing import Any

KINDS = ("experiments", "pipelines", "versions", "runs", "executions")

Row = dict[str, Any]


class Store:
    """Rows in memory. With a path, every change is a line of that file too, and a new process starts from it."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind in KINDS}
        self._journal = None
        if path is not None:
            self._read(path)
            self._journal = path.open("a", encoding="utf-8", buffering=1)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                kind, key, row = json.loads(line)
            except ValueError:  # the line that a kill -9 cut
                continue
            self._set(kind, key, row)

    def _set(self, kind: str, key: str, row: Row | None) -> None:
        if row is None:
            self.rows[kind].pop(key, None)
        else:
            self.rows[kind][key] = row

    def put(self, kind: str, key: str, row: Row | None) -> None:
        """Insert, replace, or, with None, remove."""
        with self.lock:
            self._set(kind, key, row)
            if self._journal is not None:
                self._journal.write(json.dumps([kind, key, row]) + "\n")

    def get(self, kind: str, key: str) -> Row | None:
        """The row, or None."""
        with self.lock:
            return self.rows[kind].get(key)

    def all(self, kind: str) -> list[Row]:
        """A copy of the list, in the order of insertion; the rows are the store's own."""
        with self.lock:
            return list(self.rows[kind].values())

    def clear(self, *kinds: str) -> None:
        """Forget these kinds."""
        for kind in kinds:
            for key in list(self.rows[kind]):
                self.put(kind, key, None)
