"""The proof that a 2xx is durable, by the system calls of the real API: F2 of the fault matrix, in `make test`.

For each accepted event the fsync that covers its write to the log returns before its `HTTP/1.1 202` leaves.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from faults.stage import AUTH, Stage
from faults.tracing import CALLS, Call, calls, needs_strace, straced

SYNC = {"fsync", "fdatasync"}
SEND = {"sendto", "write", "writev", "sendmsg"}


def accepted(stage: Stage, count: int, at_once: int) -> dict[str, str]:
    """So many deliveries, all answered 202: the marker of each body to the delivery's id in its answer."""
    bodies = {f"marked-{number}-of-{count}": b"" for number in range(count)}
    for marker in bodies:
        bodies[marker] = stage.body(f"{stage.home.name}/{marker}.csv")

    def sent(marker: str) -> tuple[str, str]:
        url = f"http://127.0.0.1:{stage.port}/hooks/uploads"
        answer = httpx.post(url, content=bodies[marker], headers=AUTH, timeout=60)
        assert answer.status_code == 202
        return marker, json.loads(answer.text)["id"]

    with ThreadPoolExecutor(at_once) as threads:
        return dict(threads.map(sent, bodies))


def first(found: Sequence[Call], names: set[str], word: str, *, begins: bool = True) -> int:
    """The place of the first such call that has this word in its data."""
    return next(
        place for place, one in enumerate(found) if one.name in names and one.begins is begins and word in one.told
    )


def covered(found: Sequence[Call], written: int) -> int:
    """The place where the first fsync of the same file that began after this write returned; the end if none did."""
    file, begun = found[written].file, set[str]()
    for place, one in enumerate(found[written + 1 :], written + 1):
        if one.name in SYNC and one.file == file:
            if one.begins:
                begun.add(one.thread)
            if one.ends and one.thread in begun:
                return place
    return len(found)


def late(found: Sequence[Call], ids: dict[str, str]) -> list[str]:
    """The markers whose 202 left before they were on the disk."""
    wrong = []
    for marker, delivery_id in ids.items():
        log = max(first(found, {"pwrite64"}, delivery_id), first(found, {"pwrite64"}, marker))
        assert found[log].file.endswith("-wal"), found[log].file
        if covered(found, log) > answer_of(found, delivery_id):
            wrong.append(marker)
    return wrong


def answer_of(found: Sequence[Call], delivery_id: str) -> int:
    """The place where the 202 of this delivery began to leave."""
    body = first(found, SEND, f'{{\\"id\\":\\"{delivery_id}\\"')
    same = (place for place in range(body + 1) if found[place].file == found[body].file)
    return max(place for place in same if "HTTP/1.1 202" in found[place].told)


@pytest.mark.faults
@pytest.mark.quick
@pytest.mark.store("sqlite")
@pytest.mark.parametrize(("count", "at_once"), [(8, 1), (32, 32)], ids=["one_at_a_time", "all_at_once"])
def test_F02_the_fsync_comes_before_the_2xx(stage: Stage, count: int, at_once: int) -> None:  # noqa: N802
    needs_strace()
    api = stage.api()
    with straced(api, "-e", f"trace={CALLS}") as log:
        ids = accepted(stage, count, at_once)
    assert late(calls(log), ids) == []
    stage.settled(count)
