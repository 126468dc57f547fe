"""strace on a process of the service: what it asked of the kernel, in order; and what the kernel is made to answer."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.stage import Child, until

CALLS = "pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync"
LINE = re.compile(r"(?P<thread>\d+) +(?:(?P<call>\w+)\((?P<told>.*)|<\.\.\. (?P<resumed>\w+) resumed>(?P<rest>.*))")


@dataclass(frozen=True)
class Call:
    """One line of the log: a call's begin, its end, or both."""

    thread: str
    name: str
    told: str  #: file, path and data, as strace prints them; of a resumed line, what was left
    begins: bool
    ends: bool

    @property
    def file(self) -> str:
        """The first argument: the descriptor with its path."""
        return self.told.partition(">")[0]


def needs_strace() -> None:
    """Skip with the reason where it cannot be done."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()[-200:]}")


@contextmanager
def straced(child: Child, *args: str) -> Iterator[Path]:
    """Attached to every thread of it, and let go again: the log. `inject=…` goes with `args`."""
    log = child.log.with_suffix(".strace")
    argv = ["strace", "-f", "-y", "-s", "8192", "-o", str(log), *args, "-p", str(child.pid)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            until(lambda: _traced(child.pid) or strace.poll() is not None, what="strace is attached")
            assert strace.poll() is None, f"strace ended with {strace.returncode}: {' '.join(argv)}"
            yield log
        finally:
            _let_go(strace)


def _let_go(strace: "subprocess.Popen[bytes]") -> None:
    """End it. One that has killed a thread of many may wait for the others for ever: they end when it does."""
    if strace.poll() is None:
        strace.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            strace.wait(timeout=5)
            return
        strace.kill()


def _traced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return all(re.search(r"^TracerPid:\t[1-9]", (task / "status").read_text(), re.MULTILINE) for task in tasks)


def calls(log: Path) -> Sequence[Call]:
    """The log as values, in its order, which is that of the kernel's stops."""
    found = []
    open_calls: dict[tuple[str, str], str] = {}
    for line in log.read_text(errors="replace").splitlines():
        if (one := LINE.match(line)) is None:
            continue
        thread, name = one["thread"], one["call"] or one["resumed"]
        begins, text = one["call"] is not None, one["told"] or ""
        if begins and text.endswith("<unfinished ...>"):
            open_calls[thread, name] = text
            found.append(Call(thread, name, text, begins=True, ends=False))
            continue
        told = text if begins else open_calls.pop((thread, name), "") + (one["rest"] or "")
        worked = re.search(r"= \d+(?: \(DELAYED\))?$", line) is not None
        found.append(Call(thread, name, told, begins=begins, ends=worked))
    return found
