"""A file of a commit that is on an allowed branch, from real repositories; and everything that is refused."""

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service import gitcache
from service.commits import Commits
from service.errors import Permanent, Temporary
from triggers.gitref import AllowedPackages

NOBODY = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "canary-token-of-some-length"
MAIN = AllowedPackages(branches=["main"], service_account="trainer")
CLEAN = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")} | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass(frozen=True)
class Repository:
    """A repository that people push to."""

    folder: Path

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def git(self, *arguments: str) -> str:
        argv = ["git", "-c", "protocol.file.allow=always", *arguments]
        return subprocess.run(
            argv, cwd=self.folder, env=CLEAN, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, text: str = "", path: str = "p.yaml") -> str:
        """Commits whatever lies there, and this."""
        (self.folder / path).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "m")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    made = Repository(tmp_path / "repository")
    made.git("init", "--quiet", "--initial-branch=main")
    return made


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    return Commits(tmp_path / "commits", tmp_path)


def test_the_file_of_that_very_commit_comes_though_the_branch_moved_on(
    repository: Repository, commits: Commits
) -> None:
    first, second = repository.commit("one"), repository.commit("two")
    assert commits.file(repository.url, second, "p.yaml", MAIN) == b"two"
    assert commits.file(repository.url, first, "p.yaml", MAIN) == b"one"
    third = repository.commit("three")
    assert commits.file(repository.url, third, "p.yaml", MAIN) == b"three"


def test_a_repository_of_longer_names_is_read_too(tmp_path: Path, commits: Commits) -> None:
    (tmp_path / "long").mkdir()
    made = Repository(tmp_path / "long")
    made.git("init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    assert commits.file(made.url, made.commit("x"), "p.yaml", MAIN) == b"x"


@pytest.mark.parametrize(
    ("branch", "patterns", "allowed"),
    [
        ("release/1", ["main", "release/*"], True),
        ("release/1/a", ["release/*"], True),
        ("release", ["release/*"], False),
        ("releases", ["release"], False),
        ("topic", ["main"], False),
    ],
)
def test_a_commit_counts_on_the_listed_branches_only(
    repository: Repository, commits: Commits, branch: str, patterns: list[str], allowed: bool
) -> None:
    repository.commit("on main")
    repository.git("checkout", "--quiet", "-b", branch)
    sha = repository.commit("on the branch")
    rules = AllowedPackages(branches=patterns, service_account="trainer")
    if allowed:
        assert commits.branch_of(repository.url, sha, rules) == branch
        return
    with pytest.raises(Permanent, match=r"is on none of the branches|has no branch"):
        commits.file(repository.url, sha, "p.yaml", rules)


def test_what_a_fork_or_a_deleted_branch_left_in_the_repository_is_refused(
    repository: Repository, commits: Commits
) -> None:
    repository.commit("on main")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub answers
    repository.git("checkout", "--quiet", "-b", "fork")
    sha = repository.commit("theirs")
    repository.git("checkout", "--quiet", "main")
    repository.git("update-ref", "refs/pull/1/head", sha)
    repository.git("tag", "v1", sha)
    repository.git("branch", "--quiet", "-D", "fork")
    with pytest.raises(Permanent, match=f"commit {sha} is on none of the branches"):
        commits.file(repository.url, sha, "p.yaml", AllowedPackages(branches=["*"], service_account="trainer"))


def test_a_commit_that_was_allowed_is_no_more_once_its_branch_was_rewritten(
    repository: Repository, commits: Commits
) -> None:
    repository.commit("base")
    sha = repository.commit("bad")
    assert commits.file(repository.url, sha, "p.yaml", MAIN) == b"bad"
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("good")
    with pytest.raises(Permanent, match="is on none of the branches"):
        commits.file(repository.url, sha, "p.yaml", MAIN)


def test_a_branch_may_become_a_folder_of_branches(repository: Repository, commits: Commits) -> None:
    rules = AllowedPackages(branches=["release*"], service_account="trainer")
    repository.git("checkout", "--quiet", "-b", "release")
    assert commits.branch_of(repository.url, repository.commit("1"), rules) == "release"
    repository.git("branch", "--quiet", "-m", "release", "other")
    repository.git("checkout", "--quiet", "-b", "release/1")
    assert commits.branch_of(repository.url, repository.commit("2"), rules) == "release/1"


def test_only_a_plain_file_is_read(repository: Repository, commits: Commits) -> None:
    (repository.folder / "sub").mkdir()
    (repository.folder / "link").symlink_to("/etc/passwd")
    (repository.folder / "through").symlink_to("sub")
    repository.git("init", "--quiet", "inner")
    Repository(repository.folder / "inner").commit("x")
    (repository.folder / "big").write_bytes(b"#" * ((3 << 20) + 1))
    (repository.folder / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (repository.folder / "run").write_text("executable")
    (repository.folder / "run").chmod(0o755)
    sha = repository.commit("x", "sub/p.yaml")
    assert commits.file(repository.url, sha, "run", MAIN) == b"executable"
    for path, why in {
        "link": "not a plain file", "sub": "not a plain file", "inner": "not a plain file", "through/p.yaml": "has no",
        "nothing": "has no", "*.yaml": "has no", "big": "has 3145729 bytes", "lfs": "Git LFS",
    }.items():  # fmt: skip
        with pytest.raises(Permanent, match=why):
            commits.file(repository.url, sha, path, MAIN)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../p.yaml", "a/../p.yaml", "./p.yaml", "a//b", "a\\b", "a\nb", "a" * 1025]
)
def test_a_path_stays_in_the_repository(commits: Commits, path: str) -> None:
    with pytest.raises(Permanent, match="not a path inside a repository"):
        commits.file("file:///nowhere", NOBODY, path, MAIN)


@pytest.mark.parametrize("sha", ["", "main", "HEAD", NOBODY[:12], NOBODY.upper(), NOBODY + "\n", "--all"])
def test_a_commit_is_named_in_full(commits: Commits, sha: str) -> None:
    with pytest.raises(Permanent, match="not a full commit sha"):
        commits.branch_of("file:///nowhere", sha, MAIN)


@pytest.mark.parametrize(
    "url", ["", "-x", "--upload-pack=x", "ext::sh -c id", "fd::17", "ftp://h/x", "/srv/m.git", "https://h/a b"]
)
def test_an_address_is_no_command(commits: Commits, tmp_path: Path, url: str) -> None:
    with pytest.raises(Permanent, match="no usable `url:`"):
        commits.branch_of(url, NOBODY, MAIN)
    assert not (tmp_path / "commits").exists()


def test_nothing_of_the_repository_or_the_machine_is_executed(
    repository: Repository, commits: Commits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\n")
    trap.chmod(0o755)
    (repository.folder / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (repository.folder / ".gitmodules").write_text(f'[submodule "a"]\n\tpath = a\n\turl = ext::{trap}\n')
    sha = repository.commit("x")
    config = tmp_path / "machine.gitconfig"
    config.write_text(
        f"[core]\n\thooksPath = {tmp_path}\n\tfsmonitor = {trap}\n\tsshCommand = {trap}\n"
        f"[credential]\n\thelper = {trap}\n"
        f'[filter "evil"]\n\tsmudge = {trap}\n[url "ext::{trap}"]\n\tinsteadOf = file://\n'
    )
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(config))
    for name in ("GIT_ASKPASS", "SSH_ASKPASS", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_SSH_COMMAND"):
        monkeypatch.setenv(name, str(trap))
    assert commits.file(repository.url, sha, "p.yaml", MAIN) == b"x"
    assert not mark.exists()


def test_what_a_killed_git_left_is_cleared(repository: Repository, commits: Commits, tmp_path: Path) -> None:
    commits.file(repository.url, repository.commit("1"), "p.yaml", MAIN)
    [cache] = (tmp_path / "commits").glob("*.git")
    for path in ("packed-refs.lock", "config.lock", "objects/pack/tmp_pack_x"):
        (cache / path).touch()
    [kept] = (cache / "refs/kept").iterdir()
    kept.with_suffix(".lock").touch()
    assert commits.file(repository.url, repository.commit("2"), "p.yaml", MAIN) == b"2"
    assert not list(cache.rglob("*.lock"))


def test_a_cache_that_has_grown_is_made_anew(
    repository: Repository, commits: Commits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitcache, "_PACKS", 2)
    for number in range(5):
        assert commits.file(repository.url, repository.commit(str(number)), "p.yaml", MAIN) == str(number).encode()
    assert len(list((tmp_path / "commits").glob("*.git/objects/pack/*.pack"))) <= 3


AT_ONCE = """
import sys
from pathlib import Path
from service.commits import Commits
from triggers.gitref import AllowedPackages
folder, url, sha = sys.argv[1:]
rules = AllowedPackages(branches=["main"], service_account="trainer")
print(Commits(Path(folder), Path()).file(url, sha, "p.yaml", rules).decode())
"""


def test_many_processes_share_a_cache(repository: Repository, tmp_path: Path) -> None:
    shas = {repository.commit(str(number)): str(number) for number in range(4)}
    argv = [sys.executable, "-c", AT_ONCE, str(tmp_path / "commits"), repository.url]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = {
        text: subprocess.Popen([*argv, sha], stdout=subprocess.PIPE, text=True, env=env) for sha, text in shas.items()
    }
    assert {text: one.communicate(timeout=60)[0].strip() for text, one in started.items()} == {
        text: text for text in started
    }
    assert len(list((tmp_path / "commits").glob("*.git"))) == 1


@dataclass
class Host:
    """Answers every request as it is told, and remembers what it was asked with."""

    url: str
    status: int = 401
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def host() -> Iterator[Host]:
    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append({name.lower(): text for name, text in self.headers.items()})
            self.send_response(found.status)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Location", f"{found.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not to the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        found = Host(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Permanent), (403, Permanent), (404, Permanent), (302, Permanent), (503, Temporary)]
)
def test_the_token_reaches_the_host_and_nobody_else(
    host: Host, commits: Commits, tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    host.status = status
    (tmp_path / "token").write_text(TOKEN + "\n")
    rules = AllowedPackages.model_validate({**MAIN.model_dump(), "token": {"file": "token"}})
    with pytest.raises(kind) as caught:
        commits.file(f"{host.url}/acme/model.git", NOBODY, "p.yaml", rules)
    assert base64.b64decode(host.asked[0]["authorization"].removeprefix("Basic ")).decode() == f"x-access-token:{TOKEN}"
    assert len(host.asked) <= 2  # no redirect is followed
    assert "token" in str(caught.value) or kind is Temporary
    assert TOKEN not in str(caught.value)
    for path in (tmp_path / "commits").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


def test_a_host_that_does_not_answer_is_asked_again_later(commits: Commits) -> None:
    with pytest.raises(Temporary, match="does not answer"):
        commits.branch_of("http://127.0.0.1:1/m.git", NOBODY, MAIN)


def test_a_repository_that_is_not_there_is_said_to_be(commits: Commits, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"does not let itself be read: .*is the address right"):
        commits.branch_of((tmp_path / "none").as_uri(), NOBODY, MAIN)


@pytest.mark.parametrize("token", [{"env": "NOT_SET_ANYWHERE"}, {"file": "not-there"}])
def test_a_token_that_is_missing_is_named_by_its_place(commits: Commits, token: dict[str, str]) -> None:
    rules = AllowedPackages.model_validate({**MAIN.model_dump(), "token": token})
    with pytest.raises(Temporary, match=next(iter(token.values()))):
        commits.branch_of("http://127.0.0.1:1/m.git", NOBODY, rules)


def test_a_server_that_hangs_is_left_after_the_time(
    commits: Commits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    monkeypatch.setattr(gitcache, "TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Temporary, match="took longer than 1 s"):
        commits.branch_of(f"http://127.0.0.1:{silent.getsockname()[1]}/m.git", NOBODY, MAIN)
    deadline = time.monotonic() + 5  # the kernel takes a moment to end a whole group
    while left := [one for one in Path("/proc").glob("[0-9]*/cwd") if _in(one, tmp_path)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _in(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False
