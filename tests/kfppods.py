"""What pods are to a KFP API server, for the stub: `python kfppods.py STUB HOME FOLDER` executes its runs right here.

Each open run's package is run by kfp.local with the environment that a Kubernetes secret would give the pods; how it
ends is what the stub is told to say. Until it is terminated.
"""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from service.lifecycle import TERMINAL
from service.local import LocalBackend
from service.packages import compiled
from service.ports import Job, Package, Pipeline
from service.settings import load
from service.wiring import run_environment


def spec_of(stub: httpx.Client, run: dict[str, Any]) -> bytes:
    """The package of a run: the version's that it names, or its own."""
    if "pipeline_spec" in run:
        found = run["pipeline_spec"]
    else:
        named = run["pipeline_version_reference"]
        path = f"/apis/v2beta1/pipelines/{named['pipeline_id']}/versions/{named['pipeline_version_id']}"
        found = stub.get(path).json()["pipeline_spec"]
    return json.dumps(found.get("pipeline_spec", found)).encode()


def job_of(stub: httpx.Client, run: dict[str, Any]) -> Job:
    """As the local backend takes it."""
    content = spec_of(stub, run)
    found = compiled(content, run["run_id"])
    pipeline = Pipeline(reference="", name=found.name, version="v", digest=found.digest, inputs=found.inputs)
    return Job(
        run_key=run["run_id"],
        display_name=run["display_name"],
        description="",
        pipeline=pipeline,
        params=run.get("runtime_config", {}).get("parameters", {}),
        experiment="",
        time_limit=600,
        package=Package(content=content, upload=False),
    )


def main() -> None:
    url, home, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    up = home / "data" / "up.env"
    while not up.exists():
        time.sleep(0.2)
    env = dict(word.split("=", 1) for word in shlex.split(up.read_text()))
    os.environ.update(env)
    pods = LocalBackend(folder / "packages", folder / "runs", None, 4, run_environment(load(home), os.environ))
    names: dict[str, str] = {}
    with httpx.Client(base_url=url, timeout=30) as stub:
        while True:
            for run in stub.get("/apis/v2beta1/runs", params={"page_size": 200}).json().get("runs", []):
                if run["run_id"] not in names and run.get("state") in {"PENDING", "RUNNING"}:
                    names[run["run_id"]] = run["display_name"]
                    pods.create(job_of(stub, run))
            for run_id, seen in pods.observe(list(names)).seen.items():
                if seen.state in TERMINAL:
                    told = {"task": seen.failed_task or "step", "message": seen.error, "running": 0, "pending": 0}
                    outcome = "succeed" if seen.state == "succeeded" else "fail"
                    stub.post(
                        "/_stub/script", json={"match": names.pop(run_id), "outcome": outcome, "existing": True, **told}
                    ).raise_for_status()
            time.sleep(0.3)


if __name__ == "__main__":
    main()
