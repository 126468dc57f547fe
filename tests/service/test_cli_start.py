"""From nothing: help at once, `init` that overwrites nothing, a store that is made by `migrate` and by nothing else."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, Shell

SLOW = {"kfp", "mlflow", "feast", "celery", "sqlalchemy", "fastapi", "uvicorn", "minio", "redis"}
COMMANDS = {
    "init", "up", "api", "worker", "migrate", "settings", "events", "runs", "lineage", "verify", "rules", "fire"
}  # fmt: skip


@pytest.fixture
def shell() -> Shell:
    return Shell()


def seconds(*argv: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *argv], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


def test_help_answers_at_once() -> None:
    """Under 0.4 s; on a machine that is busy, by the ratio to what Python itself takes to do nothing."""
    both = [(seconds("-m", "service", "--help"), seconds("-c", "pass")) for _ in range(5)]
    helped, nothing = (statistics.median(found) for found in zip(*both, strict=True))
    assert helped < 0.4 or helped < 20 * nothing


@pytest.mark.parametrize("args", [["--help"], ["rules", "--help"], ["fire", "--help"], ["up", "--help"]])
def test_help_imports_nothing_slow(args: list[str]) -> None:
    code = (
        "import sys\nfrom service.cli import app\n"
        f"try: app({args!r})\nexcept SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert SLOW & set(found.stderr.split()) == set()
    assert "Usage" in found.stdout


def test_help_names_every_command_with_what_it_does(shell: Shell) -> None:
    shown = shell.run("--help").out
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.startswith("  ") and line.split()}
    assert set(lines) >= COMMANDS
    assert all(len(lines[name]) > 3 for name in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["events", "nonsense"], ["events", "list", "--nonsense"], ["events", "list", "--limit", "0"],
     ["events", "list", "--limit", "x"], ["runs", "show"], ["fire"], ["lineage", "show"], ["rules", "explain"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_2(shell: Shell, home: Path, args: list[str]) -> None:
    said = shell.run(*args, status=2)
    assert said.out == ""
    assert "Usage" in said.err or "Error" in said.err


def test_init_makes_a_home_that_checks_and_starts(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a new" / "home"
    said = shell.run("init", str(folder)).out
    assert {path.name for path in folder.iterdir()} >= {"sources.yaml", "settings.toml", "rules", "secrets", "packages"}
    assert all(str(folder / name) in said for name in ("sources.yaml", "settings.toml", "rules/example.yaml"))
    assert f"cd '{folder}' && kfp-triggers rules check" in said
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(folder))
    assert shell.json("rules", "check")["ok"]
    assert shell.run("migrate").out == "the store's schema is 0006, it was empty\n"
    assert shell.run("migrate").out == "the store's schema is 0006\n"
    assert shell.json("events", "list") == {"items": []}
    assert shell.json("verify")["events"]["accepted"] == 0


def test_what_init_makes_secret_is_for_nobody_else_and_never_twice_the_same(shell: Shell, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shell.run("init", str(tmp_path / name))
        assert (tmp_path / name / "secrets").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / name / "secrets").iterdir()} == {0o600}
    secrets = [path.read_text() for path in tmp_path.glob("*/secrets/*")]
    assert len(secrets) == len(set(secrets)) == 6
    assert min(len(secret.strip()) for secret in secrets) >= 16


def test_init_never_writes_over_anything(shell: Shell, tmp_path: Path) -> None:
    shell.run("init", str(tmp_path))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        path.write_text("mine")
    (tmp_path / "settings.toml").unlink()
    (tmp_path / "settings.toml").symlink_to(tmp_path / "nowhere")
    said = shell.run("init", str(tmp_path)).out
    assert "wrote" not in said
    assert {path.read_text() for path in files if path.name != "settings.toml"} == {"mine"}
    assert not (tmp_path / "nowhere").exists()


def test_init_where_nothing_can_be_written_says_so(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = shell.run("init", str(tmp_path / "file"), status=3).err
    assert str(tmp_path / "file") in said


@pytest.mark.parametrize(
    "args",
    [["events", "list"], ["events", "show", "x"], ["runs", "list"], ["runs", "logs", "x"], ["verify"],
     ["lineage", "show", "x"], ["runs", "cancel", "x"], ["fire", "x"]],
    ids=" ".join,
)  # fmt: skip
def test_without_a_store_it_says_what_makes_one_and_makes_none(shell: Shell, home: Path, args: list[str]) -> None:
    said = shell.run(*args, status=2)
    assert "run `kfp-triggers migrate`" in said.err
    assert said.out == ""
    assert list(home.iterdir()) == []


def test_a_store_of_another_version_says_what_to_do(shell: Shell, home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "kfp-triggers.db").touch()
    assert "the store's schema is empty, this version wants 0006" in shell.run("verify", status=2).err


def test_a_store_that_is_none_says_so(shell: Shell, home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "kfp-triggers.db").write_text("this is no database, whatever its name may say\n" * 100)
    for command in (["events", "list"], ["migrate"], ["verify", "--json"]):
        assert "the store cannot be used: file is not a database" in shell.run(*command, status=3).err


@pytest.mark.parametrize("scheme", ["postgresql+nonsense", "postgresql"])
def test_a_store_that_needs_a_package_says_which(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as without the extra `postgres`
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", f"{scheme}://user:canary@host/db")
    said = shell.run("events", "list", status=2).err
    assert "canary" not in said
    assert ("the Python package psycopg" if scheme == "postgresql" else "nonsense") in said


@pytest.mark.parametrize(
    "args", [["events", "list"], ["rules", "check"], ["settings"], ["migrate"], ["api"], ["worker"], ["up"]]
)
def test_bad_settings_are_named_and_2(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_STOR__URL", "x")
    assert "did you mean KFP_TRIGGERS_STORE__URL?" in shell.run(*args, status=2).err


def test_a_worker_without_a_broker_says_what_it_needs(shell: Shell, home: Path) -> None:
    assert "KFP_TRIGGERS_BROKER__URL" in shell.run("worker", status=2).err


def test_up_without_sources_names_init(shell: Shell, home: Path) -> None:
    assert "`kfp-triggers init` writes one" in shell.run("up", status=2).err


def test_the_module_is_the_command_and_the_home_an_option(shell: Shell, tmp_path: Path) -> None:
    shell.run("init", str(tmp_path))
    said = shell.process("--home", str(tmp_path), "settings", "--json")
    assert said.document["home"] == str(tmp_path)
    assert said.err == ""


def test_a_reader_that_leaves_early_is_no_error_to_show(tmp_path: Path) -> None:
    env = {**os.environ, "KFP_TRIGGERS_HOME": str(tmp_path)}
    argv = f"{sys.executable} -m service rules schema | head -1"
    found = subprocess.run(["sh", "-c", argv], capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    assert found.stdout == "{\n"
    assert "Traceback" not in found.stderr
