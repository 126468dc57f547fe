"""The command line as a person or a script meets it: called in this process, or started as one of its own."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from typer.testing import CliRunner

from service.cli import app

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


class Shell:
    """Commands on the home that is in force."""

    def run(self, *args: str, status: int = 0) -> Said:
        """In this process: quick. Held to the status, and to showing nobody a traceback."""
        with _logs_as_they_were():
            result = CliRunner().invoke(app, list(args))
        said = Said(result.exit_code, result.stdout, result.stderr)
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        assert said.status == status, said
        assert "Traceback" not in said.out + said.err
        return said

    def json(self, *args: str, status: int = 0) -> Any:
        """The document that it prints, and nothing beside it."""
        return self.run(*args, "--json", status=status).document

    def process(self, *args: str, status: int = 0, **env: str) -> Said:
        """As a process of its own."""
        argv = [sys.executable, "-m", "service", *args]
        found = subprocess.run(
            argv, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env}, timeout=60, check=False
        )
        assert "Traceback" not in found.stderr
        assert found.returncode == status, found
        return Said(found.returncode, found.stdout, found.stderr)


@contextmanager
def _logs_as_they_were() -> Iterator[None]:
    """A command sets up logs for its process; the tests' process has more to do."""
    root = logging.getLogger()
    before, handlers, level = structlog.get_config(), root.handlers[:], root.level
    try:
        yield
    finally:
        structlog.configure(**before)
        root.handlers[:], root.level = handlers, level
