"""The git program, kept on a short leash, and the bare repositories that it fetches into.

Called by `service.commits`. It sees no configuration of the machine's, runs no hook, filter or helper, asks nobody for
a password and speaks one protocol only; the credential reaches it by its environment, where no process list shows it.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import Permanent, Temporary

TIMEOUT = 120.0  #: seconds for one git command, and for the turn at a cache
SCHEMES = ("https", "http", "ssh", "git", "file")

_PACKS = 200  #: fetches after which a cache is made anew
_PROXIES = tuple(f"{name}_proxy" for name in ("http", "https", "all", "no", "HTTP", "HTTPS", "ALL", "NO"))
_KEPT = ("PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE", *_PROXIES)
#: What a server says when asking again is useless; git's words under LC_ALL=C, and ssh's.
_REFUSED = re.compile(
    r"could not read (Username|Password)|Authentication failed|error: 40[134]|not found|Permission denied"
    r"|does not appear to be a git repository|does not exist|dubious ownership|Host key verification failed"
    r"|error: 30[12378]|not allowed|server certificate verification failed|SSL certificate problem"
)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A bare repository that only ever holds what was fetched from one address."""

    folder: Path
    url: str
    env: Mapping[str, str]

    def git(self, *arguments: str) -> bytes:
        """What it printed."""
        return _git(arguments, self.folder, self.env, self.url)

    def kept(self, *containing: str) -> dict[str, str]:
        """The branches that were fetched, with their commits; `--contains SHA`: only those that do."""
        try:
            lines = self.git("for-each-ref", *containing, "--format=%(refname) %(objectname)", "refs/kept/")
        except Permanent:  # of a commit that is not here
            return {}
        return dict(line.split(" ") for line in lines.decode().splitlines())


@contextlib.contextmanager
def opened(folder: Path, url: str, form: str, token: str) -> Iterator[Cache]:
    """The cache of an address, ours alone for as long as the block lasts; `form` is git's word for the kind of sha."""
    name = hashlib.sha256(f"{form} {url}".encode()).hexdigest()[:32]
    cache = Cache(folder=folder / f"{name}.git", url=url, env=_environment(url, token, folder))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder / f"{name}.lock", url):
            _make_ready(cache, form)
            yield cache
    except OSError as problem:
        raise Temporary(f"the cache of {url}: {problem.strerror or problem}") from problem


def _make_ready(cache: Cache, form: str) -> None:
    """A new cache when there is none, or one that has grown; what a killed git left is cleared."""
    if len(list(cache.folder.glob("objects/pack/*.pack"))) > _PACKS:
        shutil.rmtree(cache.folder)
    if not (cache.folder / "HEAD").exists():
        shutil.rmtree(cache.folder, ignore_errors=True)
        made = cache.folder.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        _git(("init", "--quiet", "--bare", "--template=", f"--object-format={form}"), made, cache.env, cache.url)
        made.rename(cache.folder)
    for left in (*cache.folder.rglob("*.lock"), *cache.folder.glob("objects/pack/tmp_*")):
        left.unlink(missing_ok=True)  # the lock beside the cache is ours: nobody else is at it


@contextlib.contextmanager
def _locked(path: Path, url: str) -> Iterator[None]:
    deadline = time.monotonic() + TIMEOUT
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise Temporary(f"{url} is being fetched by another process for more than {TIMEOUT:g} s")
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _environment(url: str, token: str, home: Path) -> dict[str, str]:
    """All that git sees: no configuration of the machine's, none of our secrets but the one for this host."""
    parts = urlsplit(url)
    settings = {
        "core.hooksPath": os.devnull,
        "core.fsmonitor": "false",
        "credential.helper": "",
        "fetch.unpackLimit": "1",  # packs are synced to the disk, loose objects are not
        "fetch.recurseSubmodules": "false",
        "gc.auto": "0",
        "maintenance.auto": "false",
        "http.followRedirects": "false",  # the header would go along
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "protocol.allow": "never",
        f"protocol.{parts.scheme if parts.scheme in SCHEMES else 'ssh'}.allow": "always",
    }
    if token and parts.scheme in {"http", "https"}:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        host = parts.netloc.rpartition("@")[2]
        settings[f"http.{parts.scheme}://{host}/.extraHeader"] = f"Authorization: Basic {basic}"
    env = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "HOME": str(home),  # where there is no .netrc
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _git(arguments: Sequence[str], folder: Path, env: Mapping[str, str], url: str) -> bytes:
    """In a session of its own: at the end of its time git's helpers end with it."""
    try:
        process = subprocess.Popen(
            ["git", f"--git-dir={folder}", *arguments],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as problem:
        raise Temporary("the program git is not there: install it", delay=60) from problem
    with process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired as problem:
            raise Temporary(f"git {arguments[0]} of {url} took longer than {TIMEOUT:g} s") from problem
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise _problem(arguments[0], url, err.decode(errors="replace"))
    return out


def _problem(verb: str, url: str, said: str) -> Permanent | Temporary:
    """git's words without its advice; what asked nothing of the network fails the same way again."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("hint:", "warning:"))]
    words = re.sub(r"//[^/@\s]+@", "//", " ".join(lines)).strip()[:300]
    if verb not in {"ls-remote", "fetch"}:
        return Permanent(f"git {verb} in the cache of {url}: {words}")
    if _REFUSED.search(said):
        remedy = "is the address right, and does `packages.token` (or the ssh key) let it be read?"
        return Permanent(f"{url} does not let itself be read: {words}; {remedy}")
    return Temporary(f"{url} does not answer: {words}", delay=10)
