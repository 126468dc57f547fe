"""The loop's rules are ones that the service takes, and give each pipeline what it has."""

import subprocess
import sys
from pathlib import Path

import loop
import pytest
from scene import REPOSITORY
from weeks import World
from yaml import safe_load

from service.settings import load
from service.wiring import rulebook

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "deploy/loop/rules/loop.yaml").read_text()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipelines."""
    out = tmp_path_factory.mktemp("packages")
    subprocess.run([sys.executable, "-m", "pipelines.compile", str(out)], cwd=ROOT, check=True, capture_output=True)
    return out


def test_the_rules_are_in_force_without_a_warning(home: Path, packages: Path) -> None:
    (home / "packages").symlink_to(packages)
    files = {"sources.yaml": loop.SOURCES.format(repository=REPOSITORY, url="file:///x.git"), "rules/loop.yaml": RULES}
    found = rulebook(load()).check(files)
    assert (sorted(found[1].rules), found[2]) == (
        ["learn-how-good", "retrain-on-alert", "retrain-on-push", "score-week"], [],
    )  # fmt: skip


def test_a_training_is_of_as_many_labels_as_a_week_has() -> None:
    rules = safe_load(RULES)["rules"]
    newest = {rules[name]["run"]["params"]["newest"] for name in ("retrain-on-push", "retrain-on-alert")}
    assert newest == {World.rows}
