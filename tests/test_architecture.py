"""The house is built as ARCHITECTURE.md says: layers, names, files, and what the wheel carries out of it."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("service", "triggers", "pipelines")
SHIPPED = (*OURS, "deploy", "docs")
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc", "shared", "core"}


def tracked(*folders: str) -> list[Path]:
    """The files that Git knows or would take, under these folders."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for line in found.stdout.splitlines() if (path := ROOT / line).is_file()]


def relative(paths: list[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def test_who_may_import_whom() -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_a_modules_name_says_what_is_in_it() -> None:
    modules = [path for path in tracked(*SHIPPED, "tests", "bench") if path.suffix == ".py"]
    assert modules
    assert relative([path for path in modules if {path.stem, path.parent.name} & SAYS_NOTHING]) == []


def test_every_module_begins_with_what_it_is() -> None:
    modules = [path for path in tracked(*OURS) if path.suffix == ".py" and "versions" not in path.parts]
    silent = [
        path for path in modules if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert relative(silent) == []


def test_no_folder_of_tests_is_a_package() -> None:
    assert relative([path for path in tracked("tests") if path.name == "__init__.py"]) == []


# Put together here, so that this file does not find itself.
_MACHINE = re.compile(
    "|".join(
        (
            r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+|opt/wheels)\b",
            r"\b(?:ghcr|quay|docker|gcr)\.io/",
            r"\bpypi\.org\b",
        )
    )
)


def test_nothing_that_is_shipped_names_a_machine_or_a_registry() -> None:
    """A path of somebody's machine works there only; a registry's host is the reader's to choose."""
    found = []
    for path in tracked(*SHIPPED):
        if path.name in {"go.sum", "go.mod"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if _MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_files_that_architecture_names_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = {
        one
        for one in re.findall(r"`([\w./<>*-]+)`", text) + re.findall(r"\]\(([\w./-]+)\)", text)
        if "/" in one and "<" not in one and one.split("/")[0] in {*SHIPPED, "tests", "bench"}
    }
    assert named
    missing = [one for one in named if not any(ROOT.glob(one.rstrip("/"))) and not any(ROOT.glob(f"{one}.py"))]
    assert sorted(missing) == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The distribution, built from what Git would take: what lies about here does not help it."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked():
        target = folder / "source" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    argv = [
        _uv(),
        "build",
        "--wheel",
        "--quiet",
        "--no-config",
        "--python",
        sys.executable,
        "--out-dir",
        str(folder / "dist"),
    ]
    for offline in (["--offline"], []):  # the builder lies in the cache where uv set the environment up
        found = subprocess.run([*argv, *offline], cwd=folder / "source", capture_output=True, text=True, check=False)
        if found.returncode == 0:
            break
    assert found.returncode == 0, found.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def _uv() -> str:
    """On PATH, or where the Makefile keeps its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = sorted((cache / "kfp-triggers").glob("uv-*/bin/uv"))
    found = shutil.which("uv") or (str(own[-1]) if own else None)
    assert found, "there is no uv: `make setup` gets one"
    return found


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(OURS)


def test_the_wheel_holds_every_file_of_theirs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert sorted(set(relative(tracked(*OURS))) - names) == []
    needed = {
        "service/templates/settings.toml",
        "service/templates/sources.yaml",
        "service/templates/rules/example.yaml",
        "service/gobuild/go.mod",
        "service/gobuild/go.sum",
        "service/store/migrations/env.py",
        "service/store/migrations/script.py.mako",
        "service/store/migrations/versions/0001_the_first_schema.py",
        "triggers/rules/schema.json",
        "pipelines/components/write_data/component.yaml",
    }
    assert sorted(needed - names) == []


def test_the_wheel_holds_nothing_that_is_not_for_users(wheel: zipfile.ZipFile) -> None:
    suffixes = (".pyc", ".db", ".log", ".env", ".key", ".pem")
    assert [
        name for name in wheel.namelist() if name.endswith(suffixes) or "/tests/" in name or "__pycache__" in name
    ] == []


def test_the_wheel_names_the_command(wheel: zipfile.ZipFile) -> None:
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "kfp-triggers = service.cli:main" in wheel.read(entry).decode()


def test_the_wheel_runs_on_its_own(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    code = "import service; assert 'installed' in service.__file__; from service.cli import main; main()"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "KFP_TRIGGERS_HOME": str(tmp_path / "home")}
    for args in (["init", str(tmp_path / "home")], ["migrate"], ["rules", "check"], ["rules", "schema"], ["verify"]):
        found = subprocess.run(
            [sys.executable, "-c", code, *args], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr


def test_no_other_distribution_has_packages_of_these_names() -> None:
    claimed = importlib.metadata.packages_distributions()
    assert {
        name: sorted(set(claimed.get(name, []))) for name in OURS if set(claimed.get(name, [])) - {"kfp-triggers"}
    } == {}
