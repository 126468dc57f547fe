"""What the README shows is run here: its rule, and every command block, as a new user would in a shell."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import load
from service.wiring import rulebook

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]


def test_the_blocks_are_the_ones_that_are_run_here() -> None:
    starts = [" ".join(text.split()[:2]) for text in SHELL]
    commands = [".venv/bin/kfp-triggers init", ".venv/bin/kfp-triggers --home"]
    assert starts == ["make demo", "make demo-loop", "make test", *commands]  # the loop: tests/loop
    assert [language for language, _ in BLOCKS if language not in {"sh", "text"}] == ["yaml"]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(rf"^{SHELL[2].strip()}\b", script, re.MULTILINE)


def test_the_rule_of_the_readme_is_right(home: Path) -> None:
    subprocess.run([sys.executable, "-m", "pipelines.compile", str(home / "packages")], check=True, capture_output=True)
    (rule,) = [text for language, text in BLOCKS if language == "yaml"]
    sources = (ROOT / "deploy" / "rules" / "sources.yaml").read_text()
    _, rules, warnings = rulebook(load()).check({"sources.yaml": sources, "rules/readme.yaml": rule})
    assert list(rules.rules) == ["score-new-users"]
    assert warnings == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout after `make setup`, so that nothing is written into the real one."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


@pytest.fixture
def user_home(checkout: Path) -> Iterator[Path]:
    """The fourth block, its last line left running."""
    env = {**os.environ, "KFP_TRIGGERS_API__PORT": "0"}  # the README's default may be taken on this machine
    *first, last = SHELL[3].strip().splitlines()
    subprocess.run(["bash", "-ec", "\n".join(first)], cwd=checkout, env=env, check=True, capture_output=True)
    said = checkout / "up.txt"
    with said.open("w") as output:
        up = subprocess.Popen(["bash", "-c", f"exec {last}"], cwd=checkout, env=env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while "\nlogs " not in said.read_text():
            assert up.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield checkout / "my-home"
    finally:
        up.terminate()
        assert up.wait(timeout=30) == 0, said.read_text()


def test_a_new_users_first_event_becomes_a_run(user_home: Path, checkout: Path) -> None:
    done = subprocess.run(["bash", "-ec", SHELL[4]], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "greet-uploads" in done.stdout
    assert "succeeded" in done.stdout
    assert (user_home / "data" / "up.env").stat().st_mode & 0o077 == 0
