"""`kfp-triggers pipelines`: the same words on a folder and on a KFP API server."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Shell
from kfpserver import Stub, kfp_stub

HELLO = Path(__file__).parents[2] / "service/templates/packages/hello@v1.yaml"
DIGEST = "6b49ff16a528"


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("stub")) as started:
        yield started


@pytest.fixture
def shell(home: Path) -> Shell:
    return Shell()


@pytest.fixture(params=["local", "kfp"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A backend of each kind, with nothing on it."""
    if request.param == "kfp":
        stub = request.getfixturevalue("stub")
        stub.reset()
        monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__KFP__ENDPOINT", stub.url)
    return str(request.param)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copy(HELLO, tmp_path / "any-name.yaml"))


def test_a_version_is_the_content_s_digest_and_the_same_content_uploads_nothing(
    shell: Shell, backend: str, package: Path
) -> None:
    push = ["pipelines", "push", str(package), "--backend", backend]
    assert shell.run(*push).out == f"hello@{DIGEST} is now on {backend}\n"
    assert shell.run(*push).out == f"hello@{DIGEST} is on {backend} already, unchanged\n"
    assert [item["uploaded"] for item in shell.json(*push, "--version", "v1.4")["items"]] == [True]
    listed = shell.json("pipelines", "list", "hello", "--backend", backend)["items"]
    assert sorted(item["version"] for item in listed) == sorted([DIGEST, "v1.4"])
    assert {item["digest"][:12] for item in listed} == {DIGEST}
    assert all(item["created_at"].endswith("Z") for item in listed)


def test_the_same_name_with_other_content_is_refused(shell: Shell, backend: str, package: Path) -> None:
    push = ["pipelines", "push", str(package), "--backend", backend, "--version", "v1"]
    shell.run(*push)
    package.write_text(package.read_text().replace("python:3.11-slim", "python:3.12-slim"))
    assert "hello@v1" in shell.run(*push, status=1).err
    assert shell.json(*push, status=1)["items"][0]["problem"].endswith("give changed content a new version")
    (listed,) = shell.json("pipelines", "list", "--backend", backend)["items"]
    assert listed["digest"].startswith(DIGEST)


def test_a_version_shows_what_it_takes(shell: Shell, backend: str, package: Path) -> None:
    shell.run("pipelines", "push", str(package), "--backend", backend, "--version", "v1", "--wait")
    show = ["pipelines", "show", "hello@v1", "--backend", backend]
    shown = shell.json(*show)
    assert (shown["pipeline"], shown["version"], shown["digest"][:12]) == ("hello", "v1", DIGEST)
    assert bool(shown["id"]) == (backend == "kfp")
    assert shown["inputs"]["size"] == {"type": "NUMBER_INTEGER", "optional": False, "default": None}
    assert shown["inputs"]["run_key"] == {"type": "STRING", "optional": True, "default": ""}
    assert re.search(r"size +NUMBER_INTEGER +yes", shell.run(*show).out)
    assert "hello@v2" in shell.run("pipelines", "show", "hello@v2", "--backend", backend, status=1).err


def test_a_folder_is_taken_whole_and_one_bad_file_uploads_nothing(shell: Shell, home: Path, package: Path) -> None:
    (package.parent / "other.yaml").write_text("{apiVersion: argoproj.io/v1alpha1, kind: Workflow}")
    assert "other.yaml is an Argo Workflow" in shell.run("pipelines", "push", str(package.parent), status=1).err
    assert not (home / "packages").exists()
    (package.parent / "other.yaml").unlink()
    shell.run("pipelines", "push", str(package.parent))
    assert [path.name for path in (home / "packages").iterdir()] == [f"hello@{DIGEST}.yaml"]


def test_the_shipped_pipelines_are_compiled_for_it(shell: Shell, home: Path) -> None:
    (home / "pipelines.py").write_text("raise SystemExit('what lies in the current folder is not ours')")
    push = ["pipelines", "push", "--image", "registry.example/steps:7", "--secret", "my-secret", "--version", "v7"]
    names = [f"{item['pipeline']}@{item['version']}" for item in shell.json(*push)["items"]]
    assert {"income-batch-inference@v7", "income-training@v7"} <= set(names)
    text = (home / "packages/income-training@v7.yaml").read_text()
    assert "image: registry.example/steps:7" in text
    assert "secretName: my-secret" in text


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["push", "--version", "latest"], 2, "`latest` is no version"),
        (["push", "x.yaml", "--image", "y"], 2, "leave them out beside a PATH"),
        (["push", "not-there.yaml"], 2, "cannot read not-there.yaml"),
        (["list", "--backend", "elsewhere"], 2, "there is no backend elsewhere; there is default, local"),
        (["show", "hello"], 1, "name@version"),
        (["show", "hello@v1"], 1, "there is none at all"),
    ],
)
def test_what_cannot_be_done_says_why(shell: Shell, args: list[str], status: int, said: str) -> None:
    assert said in shell.run("pipelines", *args, status=status).err


def test_a_backend_that_is_away_is_3_and_waited_for_only_when_asked(
    shell: Shell, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kfp_stub(tmp_path) as stub:
        monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__KFP__ENDPOINT", stub.url)
        push = ["pipelines", "push", str(package), "--backend", "kfp"]
        stub.kill()
        shell.run(*push, status=3)
        began = time.monotonic()
        shell.run(*push, "--wait", "--timeout", "3", status=3)
        assert time.monotonic() - began < 10
        later = threading.Timer(2, stub.restart)
        later.start()
        assert "is now on kfp" in shell.run(*push, "--wait", "--timeout", "30").out
        later.join()
