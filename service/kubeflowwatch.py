"""A look at all runs on a KFP server, in few calls: lists of what is open and of what ended last, and the odd GET.

Called by `service.kubeflow` every two seconds or so. Half of the calls that settings allow go into reading the list
of open runs, page after page and round again, the other half into the newest ends, into runs that were in neither,
and into why one failed. A list can be old or cut off: that a run is gone is said by a GET's 404 alone.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.errors import Permanent, ServiceError, Temporary
from service.kubeflowapi import Api, Json
from service.kubeflowerrors import Refusal
from service.kubeflowlists import EndedRuns, Meter, OpenRuns
from service.kubeflowpipelines import Pipelines, documents_of
from service.kubeflowruns import explained, key_of, manifest_of, observed
from service.lifecycle import State
from service.log import logger
from service.packages import images_of
from service.ports import Look, Observed, Sighting

_AT_ONCE = 5  #: GETs in one look
_TRIES = 3  #: to learn why a run failed
_IDLE = 15  #: times as seldom while nobody asks about a run
_REMEMBERED = 5_000  #: ends
_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class Watch:
    """What was seen of a server's runs so far. Usable from many threads; one looks at a time."""

    def __init__(
        self, api: Api, pipelines: Pipelines, namespace: str, polls: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`polls`: calls a minute; `now`: seconds of a clock that only goes forward."""
        self._api = api
        self._pipelines = pipelines
        self._now = now
        self._turn = threading.Lock()
        self._open = OpenRuns(namespace)
        self._ended = EndedRuns(namespace)
        pace = 2 * 60 / polls  # seconds a call, of each half
        self._lists, self._rest, self._idle = Meter(pace), Meter(pace), _IDLE * pace
        self._idle_until = float("-inf")
        self._seen_at: dict[str, float] = {}  #: of those asked about: when one was seen, tried, or first asked about
        self._missing: list[str] = []  #: in no list of a whole round
        self._bare: dict[str, _Bare] = {}  #: ended, and not told yet
        self._told: dict[
            str, tuple[State, datetime | None]
        ] = {}  #: ends that were told, of runs asked about and of others

    def look(self, backend_ids: Sequence[str], *, awaited: bool = False) -> Look:
        """What may be asked now. Temporary when the server cannot be asked and nothing was seen."""
        if not self._turn.acquire(blocking=False):
            return Look(seen={})
        try:
            return self._look(set(backend_ids), awaited=awaited)
        finally:
            self._turn.release()

    def _look(self, asked: set[str], *, awaited: bool) -> Look:
        now, round_, busy = self._now(), _Round(asked, awaited), bool(asked) or awaited
        self._seen_at = {one: self._seen_at.get(one, now) for one in asked}
        self._bare = {key: one for key, one in self._bare.items() if key in asked}
        try:
            if not busy and now < self._idle_until:
                return Look(seen={})
            self._idle_until = now + self._idle
            if self._lists.allows(now):
                self._lists.pay(now)
                self._take(self._open.page(self._api, now), round_)
                self._find_missing()
            if self._rest.allows(now):
                self._rest.pay(now)
                self._take(self._ended.page(self._api), round_)
                self._ask_one_by_one(round_, now)
        except ServiceError as error:
            rest = self._now() + 3 * (self._now() - now)  # a server that hangs must not hold up the others
            self._lists.rest(rest)
            self._rest.rest(rest)
            if not round_.seen and not round_.others:
                raise
            logger.warning("look_cut_short", detail=error.detail)
        return Look(seen=round_.seen, others=list(round_.others.values()))

    def _take(self, runs: Iterable[Json], round_: "_Round") -> None:
        """Of each run on a page what counts; the rest of it is let go."""
        now = self._now()
        for run in runs:
            run_id, found = str(run.get("run_id") or ""), observed(run)
            if run_id in round_.asked:
                self._seen_at[run_id] = now
                if found.state in _ENDED:
                    self._ends(run_id, found, run)
                else:
                    self._bare.pop(run_id, None)  # it was taken up again
                    round_.seen[run_id] = found
            elif (key := key_of(run)) and (found.state not in _ENDED or self._is_news(run_id, found) or round_.awaited):
                round_.others[run_id] = Sighting(
                    backend_id=run_id, run_key=key, display_name=str(run["display_name"]), observed=found
                )

    def _is_news(self, run_id: str, found: Observed) -> bool:
        """Whether this end was not told before."""
        end = (found.state, found.ended_at)
        news = self._told.get(run_id) != end
        self._told[run_id] = end
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        return news

    def _ends(self, run_id: str, found: Observed, run: Json) -> None:
        """Seen again and again until it is told; another end than the last when it was taken up between."""
        self._is_news(run_id, found)
        known = self._bare.get(run_id)
        if known is None or known.seen.ended_at != found.ended_at:
            self._bare[run_id] = _Bare(found, run)

    def _find_missing(self) -> None:
        """After a whole round of the list: whom it did not show since it began, those unseen longest first."""
        if (began := self._open.whole_since) is not None:
            self._open.whole_since = None
            unseen = ((at, one) for one, at in self._seen_at.items() if at < began and one not in self._bare)
            self._missing = [one for _, one in sorted(unseen)]

    def _ask_one_by_one(self, round_: "_Round", now: float) -> None:
        """As many as a look may cost: first the ends that were seen, then the runs that were not."""
        left = _AT_ONCE
        for run_id in list(self._bare):
            if left <= 0:
                return
            calls = self._complete(run_id, round_)
            self._rest.pay(now, calls)
            left -= calls
        # A page may show two hundred of those that are missing.
        while self._missing and left > 0 and self._ended.is_whole:
            run_id = self._missing.pop(0)  # first, so that one which cannot be asked about holds up no other
            if run_id in round_.asked and run_id not in round_.seen and run_id not in self._bare:
                self._rest.pay(now)
                left -= 1
                self._seen_at[run_id] = now  # also when it fails: the next round's turn is the others'
                self._take([self._one(run_id, round_)], round_)

    def _one(self, run_id: str, round_: "_Round") -> Json:
        try:
            return self._api.ask("look at a run", "runs.run_service_get_run", run_id)
        except Refusal as error:
            # Not any 404: a gateway's, or that of a server without this API, says nothing of the run.
            if error.status != 404 or run_id not in error.said:
                raise Temporary(error.detail) from error
            self._seen_at[run_id] = self._now()
            round_.seen[run_id] = Observed(state=State.GONE, error="KFP no longer knows this run: it was deleted there")
            return {}

    def _complete(self, run_id: str, round_: "_Round") -> int:
        """Tell an end, once its reason and images are known or cannot be. The number of calls."""
        bare, calls = self._bare[run_id], 0
        for learn in (self._learn_reason, self._learn_images):
            try:
                calls += learn(run_id, bare)
            except Permanent as error:
                calls += 1
                logger.info("run_without_details", backend_id=run_id, detail=error.detail)
            except Temporary as error:
                calls += 1
                bare.tries += 1
                logger.info("run_details_later", backend_id=run_id, detail=error.detail)
                if bare.tries < _TRIES:
                    return calls
        del self._bare[run_id]
        outputs = {"parameters": {}, "artifacts": {}, "images": bare.images}
        round_.seen[run_id] = replace(bare.seen, outputs=outputs)
        return calls

    def _learn_reason(self, run_id: str, bare: "_Bare") -> int:
        if bare.seen.state is not State.FAILED or bare.is_explained:
            return 0
        error, task = explained(bare.seen, manifest_of(_v1_run(self._api, run_id)))
        bare.seen, bare.is_explained = replace(bare.seen, error=error, failed_task=task), True
        return 1

    def _learn_images(self, _: str, bare: "_Bare") -> int:
        if not bare.version:
            return 0
        images, was_asked = self._pipelines.images(*bare.version)
        bare.images = list(images)
        return int(was_asked)


def reason(api: Api, run: Json) -> str:
    """Why a run failed, for a person; "" for one that did not, or when nobody knows."""
    bare = observed(run)
    if bare.state is not State.FAILED:
        return ""
    try:
        return explained(bare, manifest_of(_v1_run(api, str(run["run_id"]))))[0]
    except ServiceError as error:
        return f"{bare.error} ({error.detail})"


def _v1_run(api: Api, run_id: str) -> Json:
    return api.raw("read why a run failed", "GET", f"/apis/v1beta1/runs/{run_id}")


@dataclass
class _Round:
    """What one look gathers."""

    asked: set[str]
    awaited: bool  #: an end that was told already may be the one that somebody now asks for
    seen: dict[str, Observed] = field(default_factory=dict)
    others: dict[str, Sighting] = field(default_factory=dict)


class _Bare:
    """An ended run of which the reason or the images are not known yet."""

    def __init__(self, seen: Observed, run: Json) -> None:
        self.seen = seen
        self.tries = 0
        self.is_explained = False
        named = run.get("pipeline_version_reference") or {}
        ids = str(named.get("pipeline_id") or ""), str(named.get("pipeline_version_id") or "")
        self.version = ids if all(ids) else None
        self.images = images_of(documents_of(run.get("pipeline_spec") or {})[0])
