"""Exactly the commit that was pushed, and nothing that git could take for an order."""

import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.components.checkout_code import checkout as module
from pipelines.components.checkout_code.checkout import check_names, checkout, pack
from pipelines.errors import PipelineError
from pipelines.report import Step

Make = Callable[[dict[str, str]], tuple[str, str]]
SHA = "0123456789abcdef0123456789abcdef01234567"


class Flaky(SimpleHTTPRequestHandler):
    """A web server that is overloaded for its first few requests."""

    asked = 0
    overloaded = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if type(self).asked <= type(self).overloaded:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
        """Nothing: a test's output is its failure."""


@pytest.fixture
def served(model_repository: Make) -> Iterator[Callable[[int], tuple[str, str]]]:
    """A repository behind a web server that refuses the first so many requests."""
    repository, revision = model_repository({"model.py": "x = 1"})
    subprocess.run(["git", "update-server-info"], cwd=repository, check=True, timeout=30)
    handler = type("One", (Flaky,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=repository)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def start(overloaded: int) -> tuple[str, str]:
            handler.overloaded = overloaded  # type: ignore[attr-defined]  # made by type()
            return f"http://127.0.0.1:{server.server_port}/", revision

        yield start
        server.shutdown()


def checked_out(repository: str, revision: str, folder: Path) -> dict[str, str]:
    checkout(repository, revision, str(folder / "code.tar"), Step("income-training.checkout_code", "k", ""))
    with tarfile.open(folder / "code.tar") as archive:
        return {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_files_of_the_commit_come_and_git_s_own_do_not(scheme: str, model_repository: Make, tmp_path: Path) -> None:
    repository, revision = model_repository({"model.py": "x = 1", "sub/a.py": ""})
    assert checked_out(scheme + repository, revision, tmp_path) == {"model.py": "x = 1", "sub/a.py": ""}


def test_an_older_commit_is_found_though_the_branch_moved_on(model_repository: Make, tmp_path: Path) -> None:
    repository, revision = model_repository({"model.py": "x = 1"})
    command = [
        "git",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "on",
    ]
    subprocess.run(command, cwd=Path(repository).parent, check=True, timeout=30)
    assert checked_out(repository, revision, tmp_path) == {"model.py": "x = 1"}


def test_the_same_commit_gives_the_same_bytes(model_repository: Make, tmp_path: Path) -> None:
    repository, revision = model_repository({"model.py": "x = 1"})
    both = []
    for _ in range(2):
        checked_out(repository, revision, tmp_path)
        both.append((tmp_path / "code.tar").read_bytes())
    assert both[0] == both[1]


def test_a_link_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/passwd").symlink_to("/etc/passwd")
    pack(tmp_path / "tree", tmp_path / "code.tar")
    with tarfile.open(tmp_path / "code.tar") as archive:
        assert archive.getnames() == []


@pytest.mark.parametrize(
    "revision", ["main", "", "HEAD", "--upload-pack=x", SHA[:12], SHA.upper(), SHA + "\n", SHA + "^{}"]
)
def test_a_revision_is_a_full_sha(revision: str) -> None:
    with pytest.raises(PipelineError, match="revision must be a full commit sha"):
        check_names("https://git.example.org/m.git", revision)


@pytest.mark.parametrize(
    "repository", ["", "--upload-pack=touch x", "-x", "ext::sh -c x", "ftp://h/x", "https://h/a b", "javascript:x"]
)
def test_a_repository_is_a_url_or_a_path(repository: str) -> None:
    with pytest.raises(PipelineError, match="repository must be a URL"):
        check_names(repository, SHA)


@pytest.mark.parametrize(
    "repository", ["https://h/m.git", "ssh://git@h/m.git", "git@h:t/m.git", "file:///srv/m", "/srv/m.git"]
)
def test_usual_addresses_are_taken(repository: str) -> None:
    check_names(repository, SHA)


def test_a_commit_that_is_gone_is_told(model_repository: Make, tmp_path: Path) -> None:
    repository, _ = model_repository({"model.py": ""})
    with pytest.raises(PipelineError, match=f"has no commit {SHA}"):
        checked_out(repository, SHA, tmp_path)


def test_a_server_that_is_overloaded_is_asked_again(
    served: Callable[[int], tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    assert checked_out(*served(2), tmp_path) == {"model.py": "x = 1"}


def test_a_server_that_stays_overloaded_is_not_asked_for_ever(
    served: Callable[[int], tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    with pytest.raises(PipelineError, match=r"git fetch failed: .*503"):
        checked_out(*served(100), tmp_path)


def test_a_repository_that_is_gone_is_told_without_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", ())
    with pytest.raises(PipelineError) as caught:
        checked_out("http://user:t0ken@127.0.0.1:1/m.git", SHA, tmp_path)
    assert "git fetch failed" in str(caught.value)
    assert "t0ken" not in str(caught.value)
