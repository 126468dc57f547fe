"""A KFP server's lists of runs, read a page at a time, and the measure of how often that may be.

Called by `service.kubeflowwatch`. A list is no more than what it shows: it can be old, or cut off.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from service.errors import Permanent
from service.kubeflowapi import Api, Json, among, where
from service.kubeflowruns import OPEN, time_of

_PAGE = 200
_FIRST_PAGE = 50  #: of what ended: most times nothing did
_ENDED_PAGES = 10
_LATE = timedelta(seconds=60)  #: by which KFP may hear of an end after another that came later
_LIST = "runs.run_service_list_runs"


class Meter:
    """Lets one call through in so many seconds; what was paid beyond is waited for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = float("-inf")

    def allows(self, now: float) -> bool:
        """A tenth too early is in time: who asks every two seconds does not hit them exactly."""
        return now >= self._next - self._seconds / 10

    def pay(self, now: float, calls: int = 1) -> None:
        """So many were made."""
        self._next = max(self._next, now) + calls * self._seconds

    def rest(self, until: float) -> None:
        """None before that."""
        self._next = max(self._next, until)


class OpenRuns:
    """The list of what is open, the oldest first, a page at a time."""

    def __init__(self, namespace: str) -> None:
        self._query: Mapping[str, Any] = {
            "namespace": namespace,
            "sort_by": "created_at asc",
            "filter": where(among("state", OPEN)),
            "page_size": _PAGE,
        }
        self._token = ""
        self._began = 0.0
        self.whole_since: float | None = None  #: when the round began that has just come to its end

    def page(self, api: Api, now: float) -> Iterable[Json]:
        """The next one, or the first of another round."""
        if not self._token:
            self._began = now
        try:
            # The token holds both; beside a filter with IN, KFP 2.17 refuses its own token.
            query = {**self._query, "filter": "", "sort_by": ""} if self._token else self._query
            page = api.ask("list open runs", _LIST, page_token=self._token, **query)
        except Permanent:
            self._token = ""  # that of a server that is no more: begin again
            raise
        self._token = page.get("next_page_token") or ""
        self.whole_since = None if self._token else self._began
        return page.get("runs") or []


class EndedRuns:
    """The list of what ended, the newest first, down to what was seen the last time."""

    def __init__(self, namespace: str) -> None:
        self._query: Mapping[str, Any] = {"namespace": namespace, "sort_by": "finished_at desc"}
        self._token = ""
        self._pages = 0
        self._newest: datetime | None = None
        self._seen_to: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the last page led to what was seen before."""
        return not self._token

    def page(self, api: Api) -> Iterator[Json]:
        """The next one, or the newest again."""
        size = _PAGE if self._token else _FIRST_PAGE
        try:
            page = api.ask("list ended runs", _LIST, page_token=self._token, page_size=size, **self._query)
        except Permanent:
            self._token = ""
            raise
        runs = [(run, at) for run in page.get("runs") or () if (at := time_of(run.get("finished_at")))]
        is_last = len(runs) < len(page.get("runs") or ())  # behind the ended are those that have not
        self._step([at for _, at in runs], "" if is_last else page.get("next_page_token") or "")
        return (run for run, _ in runs)

    def _step(self, ends: Sequence[datetime], token: str) -> None:
        """On to the next page, or, where it leads to what was seen, back to the newest."""
        if not self._token:
            self._pages, self._newest = 0, ends[0] if ends else None
        self._pages += 1
        done = not ends or (self._seen_to is not None and ends[-1] < self._seen_to - _LATE)
        self._token = "" if done or self._pages >= _ENDED_PAGES else token
        if not self._token:
            self._seen_to = self._newest or self._seen_to
