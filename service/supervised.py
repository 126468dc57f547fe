"""Becomes a command that cannot outlive its supervisor.

`service.supervise` starts it (`python supervised.py LEASH LOCK_FD SIGNAL GRACE COMMAND…`) as the head of a session.
It forks a watcher and then is the command, with its own pid, exit code and signals. The watcher waits at the FIFO for
the supervisor's end and then ends the whole process group; when only the command ends, it ends what that left behind.
A parent-death signal would reach the command alone, and on Linux only. Only the standard library: a few megabytes.
"""

import contextlib
import os
import select
import signal
import sys
import time
from typing import NoReturn

_TICK = 0.5


def main(arguments: list[str]) -> NoReturn:
    """Fork the watcher, become the command."""
    path, lock, stop, grace = arguments[:4]
    command = arguments[4:]
    leash = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if _cut(leash):
        sys.exit("the supervisor is gone already")
    parent = os.getpid()
    if os.fork() == 0:
        _watch(leash, parent, int(stop), float(grace))
    os.umask(0o077)  # what a part keeps in the home is for this user alone
    os.close(int(lock))  # the watcher's alone: who wants to start in this home again waits until all is gone
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    except OSError as problem:
        sys.exit(f"{command[0]}: {problem.strerror}")


def _cut(leash: int) -> bool:
    try:
        return os.read(leash, 64) == b""
    except BlockingIOError:
        return False


def _watch(leash: int, parent: int, stop: int, grace: float) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    waiter = select.poll()
    waiter.register(leash, 0)  # a hang-up is told of unasked
    while os.getppid() == parent and not _cut(leash):
        waiter.poll(_TICK * 1000)
    deadline = time.monotonic() + grace
    with contextlib.suppress(ProcessLookupError):
        if os.getppid() == parent:
            os.kill(parent, stop)
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # not reached: we are of the group


if __name__ == "__main__":
    main(sys.argv[1:])
