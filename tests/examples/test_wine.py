"""The wine example, as its README has it: through the service, on real MinIO and MLflow."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples/wine/README.md").read_text()
BLOCKS = re.findall(r"```sh( up)?\n(.*?)```", README, re.DOTALL)
PREPARE, UP, DROP, LOOK, BREAK = (text for _, text in BLOCKS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like a checkout after `make setup`, with the example's home in it, up."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (".venv", "examples"):
        (folder / name).symlink_to(ROOT / name)
    shell(folder, PREPARE)
    said = folder / "up.txt"
    env = os.environ | {"KFP_TRIGGERS_API__PORT": "0"}
    with said.open("w") as output:
        up = subprocess.Popen(["bash", "-c", f"exec {UP.strip()}"], cwd=folder, env=env, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while "\nlogs " not in said.read_text():
            assert up.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        yield folder
    finally:
        up.terminate()
        assert up.wait(timeout=60) == 0, said.read_text()


def shell(folder: Path, text: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-ec", text], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def last_run(folder: Path, count: int) -> dict[str, Any]:
    """The newest run, when there are so many and it is recorded."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        listed = json.loads(shell(folder, ".venv/bin/kfp-triggers --home wine-home runs list --json"))["items"]
        if len(listed) == count and listed[0]["recorded_at"]:
            return dict(listed[0])
        time.sleep(0.5)
    raise AssertionError(f"no {count} recorded runs: {listed}")


def test_a_table_that_lands_becomes_a_model_with_its_lineage(checkout: Path) -> None:
    shell(checkout, DROP)
    run = last_run(checkout, 1)

    assert run["state"] == "succeeded", run["error"]
    reports = run["outputs"]["reports"]
    assert reports["validate_data.json"]["validation"]["success"] is True
    assert reports["evaluate_forest.json"]["metrics"]["accuracy"] > 0.9
    assert reports["publish_model.json"]["model"] == "models:/wine-classifier/1"
    told = shell(checkout, LOOK)
    assert "succeeded" in told
    assert "s3://wine/data/wine.parquet" in told


def test_a_table_that_breaks_an_expectation_ends_the_run_with_column_and_rows(checkout: Path) -> None:
    shell(checkout, DROP.replace(".venv/bin/python examples/wine/data.py", "") + BREAK.splitlines()[0])
    run = last_run(checkout, 2)

    assert run["state"] == "failed"
    (told,) = (report for name, report in run["outputs"]["reports"].items() if name == "validate_data.json")
    assert told["validation"]["failed"] == 1
    assert "alcohol" in run["error"]
    assert "178 rows" in run["error"]
