"""One file of one commit of a model repository.

Called by `service.packagefiles`. Nothing of the repository is executed and nothing is checked out: branches are
fetched into a cache, and one blob is read. A commit counts only when it is on a branch that `sources.yaml` lists, as
that branch is now: hosts such as GitHub serve a fork's commits under the repository's own address to whoever names
them.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import Permanent, Temporary
from service.gitcache import SCHEMES, Cache, opened
from service.packages import KFP_AT_MOST
from triggers.gitref import AllowedPackages
from triggers.secretref import SecretReference

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PLAIN = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]+")  # a ref as git has them, whatever a server says
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:]+")
_FILES = ("100644", "100755")
_LFS = b"version https://git-lfs.github.com/spec/"


class Commits:
    """Caches in a folder of our own, one for each address; any number of processes may ask at once."""

    def __init__(self, folder: Path, home: Path) -> None:
        """`home` is where a token's file is looked for."""
        self._folder, self._home = folder.absolute(), home

    def file(self, url: str, sha: str, path: str, allowed: AllowedPackages) -> bytes:
        """The bytes of a plain file of a commit on an allowed branch; Permanent where there is none."""
        _check_path(path)
        with self._cache(url, sha, allowed.token) as cache:
            _branch(cache, sha, allowed)
            return _read(cache, sha, path)

    def branch_of(self, url: str, sha: str, allowed: AllowedPackages) -> str:
        """The allowed branch that the commit is on, as it is now; Permanent when it is on none."""
        with self._cache(url, sha, allowed.token) as cache:
            return _branch(cache, sha, allowed)

    def _cache(self, url: str, sha: str, token: SecretReference | None) -> AbstractContextManager[Cache]:
        _check_names(url, sha)
        return opened(self._folder, url, "sha1" if len(sha) == 40 else "sha256", self._token(token))

    def _token(self, token: SecretReference | None) -> str:
        """Read at each use, so that a rotated one counts at once."""
        if token is None:
            return ""
        where = token.env or str(self._home / token.file)
        try:
            found = os.environ.get(where, "") if token.env else Path(where).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise Temporary(f"the repository's token: cannot read {where}: {type(problem).__name__}") from problem
        if not found:
            raise Temporary(f"the repository's token: {where} is {'not set' if token.env else 'empty'}")
        return found


def _branch(cache: Cache, sha: str, allowed: AllowedPackages) -> str:
    """Asks the server for its branches each time: one that was deleted or rewritten vouches for nothing."""
    listed = ", ".join(allowed.branches)
    tips = _tips(cache, allowed)
    if not tips:
        raise Permanent(f"{cache.url} has no branch {listed}: mend `packages.branches`")
    if found := _holding(cache, sha, tips):
        return found
    specs = [f"+refs/heads/{name}:{_kept(name)}" for name in tips]
    options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
    cache.git("fetch", *options, "--", cache.url, *specs)
    if found := _holding(cache, sha, tips):
        return found
    kept = cache.kept()
    if any(kept.get(_kept(name)) != tip for name, tip in tips.items()):
        raise Temporary(f"a branch of {cache.url} moved while it was fetched", delay=2)
    raise Permanent(f"commit {sha} is on none of the branches of {cache.url} that `packages` allows: {listed}")


def _tips(cache: Cache, allowed: AllowedPackages) -> dict[str, str]:
    """The allowed branches with the commits that they point to."""
    lines = cache.git("ls-remote", "--heads", "--", cache.url).decode(errors="replace").splitlines()
    told = [line.partition("\t") for line in lines]
    heads = {ref.removeprefix("refs/heads/"): tip for tip, _, ref in told if ref.startswith("refs/heads/")}
    return {name: tip for name, tip in heads.items() if allowed.lists(name) and _PLAIN.fullmatch(name)}


def _holding(cache: Cache, sha: str, tips: Mapping[str, str]) -> str:
    """A branch that contains the commit, as the server has it now; "" when none that was fetched does."""
    kept = cache.kept("--contains", sha)
    return next((name for name, tip in tips.items() if kept.get(_kept(name)) == tip), "")


def _kept(branch: str) -> str:
    """By a name that is no path: a branch `release` and a later `release/1` cannot both be files."""
    return f"refs/kept/{hashlib.sha256(branch.encode()).hexdigest()}"


def _read(cache: Cache, sha: str, path: str) -> bytes:
    """Its mode and size first, then the blob."""
    entries = cache.git("ls-tree", "-z", "-l", "--full-tree", sha, "--", path).split(b"\0")
    entry = next((one for one in entries if one.endswith(b"\t" + path.encode())), None)
    if entry is None:
        raise Permanent(f"commit {sha} of {cache.url} has no {path}")
    mode, _, blob, size = entry.partition(b"\t")[0].decode().split()
    if mode not in _FILES:
        raise Permanent(f"{path} of commit {sha} is a folder, a link or a submodule, not a plain file")
    if int(size) > KFP_AT_MOST:
        raise Permanent(f"{path} of commit {sha} has {size} bytes: a KFP API server takes no more than {KFP_AT_MOST}")
    content = cache.git("cat-file", "blob", blob)
    if content.startswith(_LFS):
        raise Permanent(f"{path} of commit {sha} is kept in Git LFS, which is not followed: commit the file itself")
    return content


def _check_names(url: str, sha: str) -> None:
    """Refuses what git might read as an option, a command or a name of many commits."""
    if not _SHA.fullmatch(sha):
        raise Permanent(f"not a full commit sha, 40 or 64 hexadecimal digits in lower case: {sha[:80]!r}")
    plain = not url.startswith("-") and "::" not in url and not re.search(r"[\x00-\x20]", url)
    if not plain or not (urlsplit(url).scheme in SCHEMES or _SCP.fullmatch(url)):
        raise Permanent(
            "the repository has no usable `url:` in sources.yaml: it must look like https://host/team/model.git"
        )


def _check_path(path: str) -> None:
    plain = path and len(path) <= 1024 and path.isprintable() and "\\" not in path
    if not plain or any(part in {"", ".", ".."} for part in path.split("/")):
        raise Permanent(f"not a path inside a repository, such as pipelines/train.yaml: {path[:100]!r}")
