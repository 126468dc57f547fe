"""What the stories are played on: the home's files, a Git repository with our hook, people and their features, and the
service's read API. Used by `stories`, `account` and `demo`, and by the acceptance tests.
"""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from service.buckets import client
from service.embedded import S3
from service.up import Stack

HERE = Path(__file__).parent
RULES = HERE.parent / "rules" / "income.yaml"

REPOSITORY = "acme/income-model"

BUCKETS = ("user-ids", "feature-store", "labels", "predictions")

PATIENCE = 300.0  #: seconds for one story

SOURCES = """\
apiVersion: kfp-triggers/v1
sources:
  uploads: {{type: minio, token: {{file: secrets/uploads}}, buckets: [user-ids]}}
  model-repo:
    type: git
    secrets: [{{file: secrets/model-repo}}]
    repositories: {{{repository}: {{url: "{url}"}}}}
  drift: {{type: alertmanager, token: {{file: secrets/drift}}}}
"""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)


class Failed(Exception):
    """A story did not come out as it should."""


@dataclass
class Demo:
    """The stack, and what the stories need of it."""

    stack: Stack
    bare: Path
    clone: Path
    now: datetime
    pause: float = 0.25  #: seconds between two looks at what is waited for
    http: Any = httpx  #: or a client of it, for many looks: each call of the module itself reads every certificate anew

    @property
    def s3(self) -> S3:
        """The object store, which a demo always has."""
        if self.stack.s3 is None:
            raise Failed("the demo needs an object store")
        return self.stack.s3

    def get(self, path: str, **params: Any) -> Any:
        """Ask the read API."""
        headers = {"Authorization": f"Bearer {self.stack.token}"}
        answer = self.http.get(f"{self.stack.api}/api/v1/{path}", params=params, headers=headers)
        return answer.raise_for_status().json()

    def runs(self, rule: str) -> list[Mapping[str, Any]]:
        """The rule's runs, newest first."""
        return list(self.get("runs", rule=rule)["items"])

    def finished(self, rule: str, count: int) -> Mapping[str, Any]:
        """Wait for the rule's count-th run and its record; its last state is the answer."""
        run = self.until(lambda: self._recorded(rule, count), f"run {count} of {rule}")
        if run["state"] != "succeeded":
            raise Failed(f"run {run['run_key']} of {rule} {run['state']}: {run['error']}")
        return run

    def _recorded(self, rule: str, count: int) -> Mapping[str, Any] | None:
        runs = self.runs(rule)
        return runs[0] if len(runs) == count and (runs[0]["recorded_at"] or runs[0]["state"] == "dead") else None

    def until(self, look: Callable[[], Any], what: str, why: Callable[[], str] = str) -> Any:
        """Look until there is something; `why` is asked in the end, if there is nothing."""
        deadline = time.monotonic() + PATIENCE
        with console.status(f"waiting for {what}") if console.is_terminal else _silence():
            while time.monotonic() < deadline:
                if found := look():
                    return found
                time.sleep(self.pause)
        raise Failed(f"{what} did not come within {PATIENCE:g} s{why()}")


@contextmanager
def _silence() -> Any:
    yield


def prepare(home: Path, url: str = "", sources: str = SOURCES, rules: Path = RULES) -> tuple[Path, Path]:
    """The home's files, and a bare repository with our hook and a clone to push from.

    Pipelines clone it from where it lies, or from a `url` to which each push goes on.
    """
    bare, clone = home / "git" / "income-model.git", home / "git" / "clone"
    (home / "rules").mkdir(parents=True)
    shutil.copy(rules, home / "rules")
    (home / "sources.yaml").write_text(sources.format(repository=REPOSITORY, url=url or bare.as_uri()))
    (home / "secrets").mkdir(mode=0o700)
    for name in ("uploads", "model-repo", "drift"):
        (home / "secrets" / name).write_text(os.urandom(24).hex())
    run(sys.executable, "-m", "pipelines.compile", str(home / "packages"), "--retries", "0")
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git("clone", "--quiet", str(bare), str(clone))
    shutil.copy(HERE.parent / "git" / "post-receive", bare / "hooks" / "post-receive")
    if url:
        git("remote", "add", "pipelines", url, cwd=clone)
    return bare, clone


def run(*argv: str, cwd: Path | None = None) -> str:
    """A command that must succeed; its output."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(argv[:4])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def git(*argv: str, cwd: Path | None = None) -> str:
    """Git with an author."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main")
    return run("git", *who, *argv, cwd=cwd)


def configure_hook(demo: Demo) -> None:
    """What deploy/git/README.md tells a repository's owner to do."""
    for name, value in (
        ("url", demo.stack.hook("model-repo")),
        ("repository", REPOSITORY),
        ("secretFile", str(demo.stack.home / "secrets" / "model-repo")),
    ):
        git("config", f"kfp-triggers.{name}", value, cwd=demo.bare)


def people(demo: Demo) -> None:
    """Features, labels and Feast's registry in their buckets; Feast is imported in a process of its own."""
    env = {**os.environ, **demo.s3.environment()}
    argv = [sys.executable, str(HERE / "data.py"), "--bucket", "feature-store", "--now", demo.now.isoformat()]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the people could not be made:\n{done.stderr}")
    store = client(demo.s3)
    labels = store.get_object("feature-store", "labels.parquet").read()
    store.put_object("labels", "income/history.parquet", io.BytesIO(labels), len(labels))


def push(demo: Demo, version: str, message: str) -> str:
    """A commit with this version of the model's code; its sha."""
    for path in (HERE / "model_repo" / version).iterdir():
        shutil.copy(path, demo.clone)
    git("add", "--all", cwd=demo.clone)
    git("commit", "--quiet", "--message", message, cwd=demo.clone)
    if "pipelines" in git("remote", cwd=demo.clone).split():  # first, so that it is there when the run begins
        git("push", "--quiet", "pipelines", "HEAD:main", cwd=demo.clone)
    git("push", "--quiet", "origin", "HEAD:main", cwd=demo.clone)
    return git("rev-parse", "HEAD", cwd=demo.clone).strip()
