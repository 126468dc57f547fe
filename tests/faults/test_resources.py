"""F28: descriptors, memory, processor and patience run out: what is too much is shed, good traffic goes on."""

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from faults.redisserver import Redis
from faults.report import Account
from faults.stage import PACE, Child, Stage, bound, until
from faults.test_broker import redis  # noqa: F401 - a fixture

pytestmark = pytest.mark.faults
quick = pytest.mark.quick
BEGUN = b"POST /hooks/uploads HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer "  #: a head that never ends
HEAD = b"POST /hooks/uploads HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
GIB = 1 << 30


def opened(port: int, said: bytes = b"") -> socket.socket | None:
    """A connection on which no more is said than this; None where it is not taken."""
    with suppress(OSError):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        one.sendall(said)
        return one
    return None


def gone(one: socket.socket) -> bool:
    """Whether the other side has closed it."""
    one.setblocking(False)
    try:
        return one.recv(4096, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def timed(stage: Stage, count: int) -> Sequence[float]:
    """Seconds that each of so many deliveries took, as a sender sees it who comes again when he is not let in."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        stage.deliver()
        took.append(time.monotonic() - began)
    return sorted(took)


def memory(child: Child) -> int:
    """Bytes that it has in use."""
    return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@quick
@pytest.mark.both
def test_F28_idle_connections_take_no_descriptor_from_others(stage: Stage, account: Account) -> None:  # noqa: N802
    api = stage.api(limits={"NOFILE": 64})
    with ExitStack() as held:
        for _ in range(200):
            if (one := opened(stage.port)) is not None:
                held.enter_context(one)
        took = timed(stage, 20)
        assert len(list(Path(f"/proc/{api.pid}/fd").iterdir())) <= 64
    assert took[-1] < 5, took
    account.recovered(stage.settled(20))
    assert api.ended(within=0) is None


@quick
def test_F28_headers_that_never_end_are_cut_off_and_hold_up_nobody(stage: Stage, account: Account) -> None:  # noqa: N802
    stage.api(KFP_TRIGGERS_API__BODY_TIMEOUT="2")
    with ExitStack() as held:
        slow = [held.enter_context(one) for _ in range(200) if (one := opened(stage.port, BEGUN)) is not None]
        took = timed(stage, 20)
        until(lambda: all(map(gone, slow)), within=10, what="the slow ones are cut off")
    assert took[-1] < 5, took
    account.recovered(stage.settled(20))


def test_F28_a_thousand_slow_clients_hold_up_nobody(stage: Stage, account: Account) -> None:  # noqa: N802
    """Half of them in their headers, half byte by byte in their bodies, and they come again."""
    over = threading.Event()

    def drip(said: bytes) -> None:
        while not over.is_set():
            clients = [one for _ in range(125) if (one := opened(stage.port, said)) is not None]
            for _ in range(5):
                for one in clients:
                    with suppress(OSError):
                        one.send(b"x")
                over.wait(0.5)
            for one in clients:
                one.close()

    stage.api(KFP_TRIGGERS_API__BODY_TIMEOUT="2")
    length = b"Content-Length: 100000\r\n\r\n"
    with ThreadPoolExecutor(8) as pool:
        for said in [BEGUN, HEAD + length] * 4:
            pool.submit(drip, said)
        try:
            time.sleep(1)
            took = timed(stage, 50)
        finally:
            over.set()
    assert took[-1] < 10, took[-5:]
    account.recovered(stage.settled(50, within=60))


@quick
def test_F28_a_gibibyte_is_refused_at_once_and_fills_no_memory(stage: Stage, account: Account) -> None:  # noqa: N802
    api = stage.api()
    stage.deliver()
    before = memory(api)
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as declared:
        declared.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % GIB)
        assert declared.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as streamed:
        streamed.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent, piece = 0, b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
        with suppress(OSError):
            while sent < GIB:
                streamed.sendall(piece)
                sent += 0x10000
        assert sent < GIB / 16, "nobody stopped it"
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as heads, suppress(OSError):
        heads.sendall(HEAD)
        for number in range(100_000):
            heads.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
        pytest.fail("a hundred megabytes of headers were taken")
    assert memory(api) - before < 32 << 20
    stage.deliver()
    account.recovered(stage.settled(2))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def test_F28_a_worker_that_gets_no_processor_time_makes_no_second_run(  # noqa: N802
    stage: Stage,
    redis: Redis,  # noqa: F811 - the fixture
    account: Account,
) -> None:
    redis.start()
    stage.api(KFP_TRIGGERS_BROKER__URL=redis.url)
    starved = stage.start("worker", KFP_TRIGGERS_BROKER__URL=redis.url)
    for thread in Path(f"/proc/{starved.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
    with busy(2 * (os.cpu_count() or 1)):
        for _ in range(6):
            stage.deliver()
        account.recovered(stage.settled(6, within=90))
    assert starved.ended(within=0) is None


def test_F28_a_worker_without_memory_leaves_its_work_to_others(  # noqa: N802
    stage: Stage,
    redis: Redis,  # noqa: F811 - the fixture
    account: Account,
) -> None:
    """It gets no more than it has once it listens: too little for its threads, or for the client of a backend."""
    redis.start()
    stage.api(KFP_TRIGGERS_BROKER__URL=redis.url)
    poor = stage.start("worker", KFP_TRIGGERS_BROKER__URL=redis.url)
    until(lambda: "ready" in poor.log.read_text(), what="the worker listens")
    size = int(Path(f"/proc/{poor.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(poor.pid, resource.RLIMIT_AS, (size, size))
    for _ in range(6):
        stage.deliver()
    account.recovered(stage.settled(6))
    assert account.seconds[-1] <= bound(PACE["settle"])


@quick
def test_F28_what_is_too_much_for_the_store_is_503_and_comes_again(stage: Stage, account: Account) -> None:  # noqa: N802
    """A burst of senders, of whom a queue of four lets few in at once."""
    stage.api(KFP_TRIGGERS_API__QUEUE="4")
    bodies = [stage.body() for _ in range(60)]
    with stage.held(), ThreadPoolExecutor(60) as senders:
        told = [senders.submit(stage.post, body) for body in bodies]
        answers = {one.result() for one in told}
    assert answers == {503}
    with httpx.Client() as client:
        assert client.get(f"http://127.0.0.1:{stage.port}/healthz").status_code == 200
    for body in bodies:
        stage.deliver(body)
    account.recovered(stage.settled(60, within=90))
