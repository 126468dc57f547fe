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


def needs_to_trace_others() -> None:
    """Skip where only root may trace what is neither its child nor says so, as PostgreSQL does not."""
    needs_strace()
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0":
        pytest.skip("only root may trace PostgreSQL here: /proc/sys/kernel/yama/ptrace_scope")


@contextmanager
def straced(child: Child, *args: str) -> Iterator[Path]:
    """Attached to every thread of it, and let go again: the log. `inject=…` goes with `args`."""
    with traced(child.log.with_suffix(".strace"), [child.pid], *args) as log:
        yield log


@contextmanager
def traced(log: Path, pids: Sequence[int], *args: str) -> Iterator[Path]:
    """The same of several processes, and of those that they make."""
    argv = ["strace", "-f", "-y", "-s", "8192", "-o", str(log), *args, *(f"-p{pid}" for pid in pids)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            until(lambda: all(map(_traced, pids)) or strace.poll() is not None, what="strace is attached")
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
    with contextlib.suppress(FileNotFoundError):  # it ended meanwhile: nothing to attach to
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return all(re.search(r"^TracerPid:\t[1-9]", (task / "status").read_text(), re.MULTILINE) for task in tasks)
    return True


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
