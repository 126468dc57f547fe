"""The Git hook that we ship: real pushes into a real repository, a small server, and every way that it can fail."""

import ast
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from triggers.errors import NotAuthentic
from triggers.event import Delivery, Event, Reading, Verdict
from triggers.sources import git

HOOK = Path(__file__).parents[2] / "deploy/git/post-receive"
SECRET = b"git-hook-secret-0123456789"
CONFIG = git.Config.model_validate({"repositories": {"acme/income-model": {"url": "ssh://git@git.example/x.git"}}})
# Nothing of the machine's own git configuration, and no hook settings from its environment.
CLEAN = {name: text for name, text in os.environ.items() if not name.startswith(("GIT_", "KFP_TRIGGERS"))} | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada Lovelace",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada Lovelace",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


@dataclass
class Service:
    """What stands for kfp-triggers: it verifies and reads as the source does, and answers as the test wants."""

    url: str
    answers: list[int] = field(default_factory=list)  #: the next ones; 202 when there are none
    taken: list[Delivery] = field(default_factory=list)  #: those that were answered 2xx
    asked: int = 0
    hold: threading.Event = field(default_factory=threading.Event)  #: requests wait until it is set

    def readings(self) -> list[Reading]:
        return [git.read(CONFIG, delivery) for delivery in self.taken]

    def events(self) -> list[Event]:
        return [event for reading in self.readings() for event in reading.events]


@pytest.fixture
def service() -> Iterator[Service]:
    """On a free port of the loopback address."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): text for name, text in self.headers.items()}
            body = self.rfile.read(int(headers["content-length"]))
            found.asked += 1
            found.hold.wait(20)
            delivery = Delivery(source="g", headers=headers, body=body, received_at=datetime.now(UTC))
            try:
                git.verify(CONFIG, delivery, [SECRET])
                answer = found.answers.pop(0) if found.answers else 202
            except NotAuthentic:
                answer = 401
            if 200 <= answer < 300:
                found.taken.append(delivery)
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    found = Service(url=f"http://127.0.0.1:{server.server_port}/hooks/g")
    found.hold.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Repository:
    """A bare repository with the hook, and a clone to push from."""

    bare: Path
    clone: Path

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _git(self.clone, *arguments)

    def commit(self, path: str, text: str = "x", message: str = "a commit") -> str:
        (self.clone / path).parent.mkdir(parents=True, exist_ok=True)
        (self.clone / path).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.sha("HEAD")

    def sha(self, name: str) -> str:
        return self.git("rev-parse", name).stdout.strip()

    def push(self, *arguments: str) -> str:
        """What the pusher reads. A push never fails."""
        return self.git("push", "--quiet", "origin", *(arguments or ("HEAD:main",))).stderr

    def hook(self, *arguments: str, lines: str = "") -> str:
        """Run the hook as Git or cron does."""
        done = subprocess.run(  # our own hook
            [sys.executable, self.bare / "hooks/post-receive", *arguments],
            cwd=self.bare,
            env=CLEAN,
            input=lines,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == ""
        return done.stderr

    def spool(self) -> list[str]:
        folder = self.bare / "kfp-triggers-spool"
        return sorted(path.name for path in folder.glob("*.json*")) if folder.exists() else []

    def set(self, name: str, value: str) -> None:
        _git(self.bare, "config", f"kfp-triggers.{name}", value)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # the test's own arguments
        ["git", *arguments],  # whichever git there is
        cwd=folder,
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.fixture
def repository(tmp_path: Path, service: Service) -> Repository:
    """Set up as deploy/git/README.md says."""
    found = Repository(tmp_path / "income-model.git", tmp_path / "clone")
    _git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(found.bare))
    _git(tmp_path, "clone", "--quiet", str(found.bare), str(found.clone))
    (found.bare / "hooks/post-receive").write_text(
        HOOK.read_text(encoding="utf-8").replace("#!/usr/bin/env python3", f"#!{sys.executable}"), encoding="utf-8"
    )
    (found.bare / "hooks/post-receive").chmod(0o755)
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    found.set("url", service.url)
    found.set("repository", "acme/income-model")
    found.set("secretFile", str(tmp_path / "secret"))
    return found


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_push_is_told_at_once_and_silently(repository: Repository, service: Service) -> None:
    repository.commit("src/model.py", message="Bin the age more finely\n\n東京")
    assert repository.push() == ""
    [event] = service.events()
    assert (event.type, event.verdict) == ("git.push", Verdict.ACCEPTED)
    assert event.position == repository.sha("HEAD")
    assert {name: event.data[name] for name in ("branch", "before", "paths", "author", "message", "forced")} == {
        "branch": "main",
        "before": "",
        "paths": ["src/model.py"],
        "author": "Ada Lovelace",
        "message": "Bin the age more finely\n\n東京",
        "forced": False,
    }
    assert repository.spool() == []


def test_the_paths_are_all_that_the_push_changed(repository: Repository, service: Service) -> None:
    repository.commit("src/old name.py", text="a" * 100)
    before = repository.commit("README.md")
    repository.push()
    repository.git("mv", "src/old name.py", "src/neu-東京.py")
    repository.commit("features/age.py")
    (repository.clone / "README.md").unlink()
    repository.commit("src/x.py")
    repository.push()
    data = service.events()[1].data
    assert data["paths"] == ["README.md", "features/age.py", "src/neu-東京.py", "src/old name.py", "src/x.py"]
    assert (data["before"], data["paths_complete"]) == (before, True)


def test_a_new_branch_has_the_paths_of_its_own_commits(repository: Repository, service: Service) -> None:
    repository.commit("a.py")
    repository.push()
    repository.commit("b.py")
    repository.push("HEAD:feature", "HEAD:same", "HEAD:main")
    assert [event.data["paths"] for event in service.events()[1:]] == [["b.py"], ["b.py"], ["b.py"]]


def test_all_refs_of_a_push_come_in_one_delivery(repository: Repository, service: Service) -> None:
    repository.commit("a.py")
    repository.git("tag", "--annotate", "v1", "--message", "the first")
    repository.push("HEAD:main", "HEAD:other", "v1")
    repository.push("--delete", "other")
    first, second = service.readings()
    assert sorted(event.subject.partition("@")[2] for event in first.events) == [
        "refs/heads/main",
        "refs/heads/other",
        "refs/tags/v1",
    ]
    tag = next(event for event in first.events if event.type == "git.tag")
    assert (tag.position, tag.data["sha"]) == (repository.sha("v1"), repository.sha("HEAD"))
    assert [event.type for event in second.events] == ["git.deleted"]


def test_a_rewritten_history_is_forced(repository: Repository, service: Service) -> None:
    repository.commit("a.py")
    repository.commit("b.py")
    repository.push()
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("c.py")
    repository.push("--force", "HEAD:main")
    event = service.events()[1]
    assert (event.data["forced"], event.data["paths"]) == (True, ["b.py", "c.py"])


def test_a_push_while_the_service_is_away_goes_with_the_next_in_order(repository: Repository, service: Service) -> None:
    service.answers = [503]
    first = repository.commit("a.py")
    said = repository.push()
    assert said.count("kfp-triggers:") == 1
    assert "not sent, kept for later (1 waiting): HTTP 503" in said
    second = repository.commit("b.py")
    assert repository.push() == ""
    assert [event.position for event in service.events()] == [first, second]
    assert repository.spool() == []


def test_a_port_where_nobody_listens_keeps_everything_for_cron(repository: Repository, service: Service) -> None:
    url = service.url
    repository.set("url", "http://127.0.0.1:9/hooks/g")
    shas = [repository.commit("a.py")]
    assert "ConnectionRefusedError" in repository.push()
    shas.append(repository.commit("b.py"))
    assert "(2 waiting)" in repository.push()
    repository.set("url", url)
    assert repository.hook("--drain") == ""
    assert [event.position for event in service.events()] == shas
    assert repository.hook("--drain", str(repository.bare)) == ""
    assert service.asked == 2


def test_killed_between_spool_and_answer_nothing_is_lost(repository: Repository, service: Service) -> None:
    service.hold.clear()
    repository.set("url", "http://127.0.0.1:9/")
    sha = repository.commit("a.py")
    repository.push()  # spooled; then start over with a service that hangs
    repository.set("url", service.url)
    hook = subprocess.Popen(  # our own hook
        [sys.executable, repository.bare / "hooks/post-receive", "--drain"],
        cwd=repository.bare,
        env=CLEAN,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: service.asked)
    hook.send_signal(signal.SIGKILL)
    hook.wait()
    assert len(repository.spool()) == 1
    service.hold.set()
    repository.hook("--drain")
    assert {event.position for event in service.events()} == {sha}
    assert len({reading.transport_key for reading in service.readings()}) == 1
    assert repository.spool() == []


def test_killed_before_it_looked_at_the_commits_it_looks_later(repository: Repository, service: Service) -> None:
    service.answers = [503]
    sha = repository.commit("a.py")
    repository.push()
    [name] = repository.spool()
    path = repository.bare / "kfp-triggers-spool" / name
    entry = json.loads(path.read_text())
    entry["updates"] = [{part: update[part] for part in ("old", "new", "ref")} for update in entry["updates"]]
    path.write_text(json.dumps(entry))
    repository.hook("--drain")
    [event] = service.events()
    assert (event.position, event.data["paths"], event.data["message"]) == (sha, ["a.py"], "a commit")


def test_what_came_while_another_was_sending_is_sent_by_that_one(repository: Repository, service: Service) -> None:
    service.hold.clear()
    shas = [repository.commit("a.py")]
    slow = subprocess.Popen(
        ["git", "push", "--quiet", "origin", "HEAD:main"],  # whichever git there is
        cwd=repository.clone,
        env=CLEAN,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: service.asked)
    shas.append(repository.commit("b.py"))
    assert repository.push("HEAD:other") == ""  # returns though the service hangs
    assert service.asked == 1
    service.hold.set()
    assert slow.wait(20) == 0
    assert [event.position for event in service.events()] == shas
    assert repository.spool() == []


@pytest.mark.parametrize("answer", [401, 403, 404, 405, 429, 500, 503, 301])
def test_an_answer_that_would_meet_them_all_stops_the_queue(
    answer: int, repository: Repository, service: Service
) -> None:
    service.answers = [503, answer]
    repository.commit("a.py")
    repository.push()
    repository.commit("b.py")
    said = repository.push()
    assert f"(2 waiting): HTTP {answer}" in said
    assert said.count("kfp-triggers:") == 1
    assert (service.asked, len(repository.spool())) == (2, 2)


@pytest.mark.parametrize("answer", [400, 415, 422])
def test_a_refused_push_is_kept_and_named_and_those_behind_it_go_on(
    answer: int, repository: Repository, service: Service
) -> None:
    service.answers = [503, answer]
    first = repository.commit("a.py")
    repository.push()
    second = repository.commit("b.py")
    said = repository.push()
    [name] = repository.spool()
    assert name.endswith(".json.refused")
    assert f"HTTP {answer}, kept as {name}" in said
    assert [event.position for event in service.events()] == [second]
    assert repository.hook("--drain") == ""
    repository.hook("--retry-refused")
    assert [event.position for event in service.events()] == [second, first]
    assert repository.spool() == []


def test_a_push_that_is_too_large_goes_without_its_paths(repository: Repository, service: Service) -> None:
    service.answers = [413]
    sha = repository.commit("a.py")
    assert repository.push() == ""
    [event] = service.events()
    assert (event.position, event.data["paths"], event.data["paths_complete"]) == (sha, [], False)


def test_more_paths_than_are_sent_are_admitted(repository: Repository, service: Service) -> None:
    for number in range(5001):
        (repository.clone / f"f{number:05}").touch()
    repository.commit("a.py")
    repository.push()
    [event] = service.events()
    assert (len(event.data["paths"]), event.data["paths_complete"]) == (5000, False)


@pytest.mark.parametrize("name", ["url", "repository", "secretFile"])
def test_a_setting_that_is_missing_is_named_and_loses_nothing(
    name: str, repository: Repository, service: Service
) -> None:
    value = _git(repository.bare, "config", f"kfp-triggers.{name}").stdout.strip()
    _git(repository.bare, "config", "--unset", f"kfp-triggers.{name}")
    sha = repository.commit("a.py")
    assert f"git config kfp-triggers.{name}" in repository.push()
    repository.set(name, value)
    repository.hook("--drain")
    assert [event.position for event in service.events()] == [sha]


def test_a_wrong_secret_says_so(repository: Repository, service: Service, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"another-secret-0123456789")
    repository.commit("a.py")
    assert "HTTP 401: the secret is not the one of the source" in repository.push()
    assert service.taken == []


def test_without_a_spool_a_push_is_sent_here_and_now(repository: Repository, service: Service) -> None:
    (repository.bare / "kfp-triggers-spool").write_text("a file in its place")
    sha = repository.commit("a.py")
    assert "cannot write its spool" in repository.push()
    assert [event.position for event in service.events()] == [sha]


def test_half_a_file_in_the_spool_is_named_and_passed_over(repository: Repository, service: Service) -> None:
    repository.commit("a.py")
    repository.push()
    (repository.bare / "kfp-triggers-spool" / "00000000000000000000-x.json").write_text('{"version"')
    sha = repository.commit("b.py")
    assert "cannot read 00000000000000000000-x.json" in repository.push()
    assert service.events()[-1].position == sha


def test_the_spool_holds_no_secret_and_is_its_owners(repository: Repository, service: Service) -> None:
    service.answers = [503]
    repository.commit("a.py")
    repository.push()
    [path] = (repository.bare / "kfp-triggers-spool").glob("*.json")
    assert SECRET not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_never_fails_a_push(repository: Repository) -> None:
    assert repository.hook(lines="nonsense\n") == ""
    assert "kfp-triggers:" in repository.hook("--drain", "/nowhere")
    repository.set("url", "gopher://x")
    assert "not an http(s) URL" in repository.hook(lines=f"{'0' * 40} {'a' * 40} refs/heads/main\n")


def test_its_grammar_is_that_of_python_3_7() -> None:
    ast.parse(HOOK.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_it_is_executable() -> None:
    assert os.access(HOOK, os.X_OK)
