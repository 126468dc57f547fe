"""No credential is ever in what is compiled: compiled where every one of them is in the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.compile import COMPONENTS, EXAMPLES, PIPELINES, compile_pipelines
from pipelines.placement import OPTIONAL, REQUIRED, Placement

ROOT = Path(__file__).parents[2]
VARIABLES = (*REQUIRED, *OPTIONAL, "KFP_TRIGGERS_API__TOKEN", "MINIO_ROOT_PASSWORD", "GITHUB_TOKEN")
CANARIES = {name: f"canary-{name.lower()}-value" for name in VARIABLES}
COMPILE = """
import sys
from pathlib import Path
from pipelines.compile import EXAMPLES, PIPELINES, compile_components, compile_pipelines
from pipelines.placement import Placement
compile_pipelines(Path(sys.argv[1]), Placement(), "v1", {**PIPELINES, **EXAMPLES})
compile_components(Path(sys.argv[1]))
"""


def test_no_value_of_a_secret_is_in_what_is_compiled(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COMPILE, str(tmp_path)], cwd=ROOT, env={**os.environ, **CANARIES}, check=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(PIPELINES) + len(EXAMPLES) + len(list(COMPONENTS.glob("*/component.yaml")))
    assert [path for path in files if b"canary" in path.read_bytes()] == []


def test_a_variable_may_come_from_another_key_and_two_from_one(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_ENDPOINT_URL": "endpoint", "FEAST_S3_ENDPOINT_URL": "endpoint"}
    paths = compile_pipelines(tmp_path, Placement(secret="mlpipeline-minio-artifact", keys=keys), "v1")
    for path in paths:
        _, platform = yaml.safe_load_all(path.read_text())
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            taken = [(one["envVar"], one["secretKey"]) for part in executor["secretAsEnv"] for one in part["keyToEnv"]]
            assert dict(taken) == {name: keys.get(name, name) for name in (*REQUIRED, *OPTIONAL)}
            assert len(taken) == len(REQUIRED) + len(OPTIONAL)
            needed = [part for part in executor["secretAsEnv"] if not part.get("optional")]
            assert {one["envVar"] for part in needed for one in part["keyToEnv"]} == set(REQUIRED)


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID=", "PATH=x"])
def test_a_key_is_given_to_a_variable_that_there_is(wrong: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipelines.compile", str(tmp_path), "--secret-key", wrong]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "write VARIABLE=KEY; there is AWS_ACCESS_KEY_ID" in done.stderr
