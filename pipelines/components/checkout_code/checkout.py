"""A repository at exactly one commit → a tar of its files. Called by component.py.

The repository's URL comes from the configuration of the source, the commit from the push. Git gets neither as an
option, runs no hook, follows no submodule, asks no password, and writes links as plain files, so that nothing in the
tree points out of it.
"""

import os
import re
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.errors import PipelineError
from pipelines.report import Step, commit

TIMEOUT = 300  # seconds for one git command; a repository of model code is small
SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SCHEMES = ("https", "http", "ssh", "git", "file", "")

PAUSES = (2.0, 8.0)  # seconds before each further attempt at a server that did not answer
NO_ANSWER = re.compile(
    r"Could not resolve host|Connection (refused|timed out|reset)|Failed to connect|Operation timed out|early EOF"
    r"|RPC failed|hung up unexpectedly|unexpected disconnect|returned error: (429|5\d\d)"
)

HARDENED = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false", "-c", "protocol.ext.allow=never",
    "-c", "submodule.recurse=false", "-c", "core.fsmonitor=false", "-c", "advice.detachedHead=false",
)  # fmt: skip


def checkout(repository: str, revision: str, output: str, step: Step) -> None:
    """Writes the files of that commit as a tar, always the same bytes for the same commit."""
    check_names(repository, revision)
    step.inputs.append(commit(repository, revision))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _fetch(repository, revision, tree)
        pack(tree, Path(output))


def check_names(repository: str, revision: str) -> None:
    """Refuses what git might read as an option or as a command."""
    if not SHA.fullmatch(revision):
        raise PipelineError(
            f"revision must be a full commit sha, 40 hexadecimal digits in lower case, not {revision[:80]!r}"
        )
    scp_like = re.fullmatch(r"[\w.-]+@[\w.-]+:[^:]+", repository)
    plain = not repository.startswith("-") and "::" not in repository and not re.search(r"[\x00-\x20]", repository)
    if not repository or not plain or (urlsplit(repository).scheme not in SCHEMES and not scp_like):
        raise PipelineError("repository must be a URL such as https://host/team/model.git, or a path")


def pack(tree: Path, output: Path) -> None:
    """The tree's files but git's own, in name order, without owners and times."""
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_symlink() or not path.is_file() or ".git" in path.relative_to(tree).parts:
                continue
            entry = tarfile.TarInfo(path.relative_to(tree).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)


def _fetch(repository: str, revision: str, tree: Path) -> None:
    """Just that commit; a server that refuses a bare sha is asked for its branches and tags."""
    _git(["init", "--quiet", "--", str(tree)], tree.parent)
    shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", repository, revision]
    try:
        _ask(shallow, tree)
    except PipelineError as error:
        if NO_ANSWER.search(str(error)):
            raise
        everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        _ask(["fetch", "--quiet", "--no-recurse-submodules", "--", repository, *everything], tree)
    try:
        _git(["checkout", "--quiet", "--detach", revision, "--"], tree)
    except PipelineError:
        raise PipelineError(
            f"the repository has no commit {revision} on any branch or tag; was it force-pushed away?"
        ) from None


def _ask(arguments: list[str], folder: Path) -> None:
    """Asks a server again that gave no answer; one that said no is believed."""
    for pause in PAUSES:
        try:
            return _git(arguments, folder)
        except PipelineError as error:
            if not NO_ANSWER.search(str(error)):
                raise
        time.sleep(pause)
    return _git(arguments, folder)


def _git(arguments: list[str], folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    verb = arguments[0]
    try:
        subprocess.run(
            ["git", *HARDENED, *arguments],
            cwd=folder, env=environment, timeout=TIMEOUT, check=True, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise PipelineError("this image has no git") from None
    except subprocess.TimeoutExpired:
        raise PipelineError(f"git {verb} took longer than {TIMEOUT} s") from None
    except subprocess.CalledProcessError as error:
        reason = re.sub(r"//[^/@\s]+@", "//", error.stderr.decode(errors="replace"))  # a URL may carry a token
        raise PipelineError(f"git {verb} failed: {reason.strip()[:500]}") from None
