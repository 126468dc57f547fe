"""The demo on a Kubeflow Pipelines that somebody has: settings, pipelines, and what is amiss, said before it plays.

The pods take their credentials from the Kubernetes secret that docs/kubeflow.md makes.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from scene import Failed, console, run

from service.settings import load
from service.wiring import backends

MISSING = """\
There is no Kubeflow Pipelines to play on: name its API server by ENDPOINT=http://host:8888.
  make demo BACKEND=kfp ENDPOINT=… IMAGE=… [NAMESPACE=…] [TOKEN_FILE=…]
Its pods must reach MinIO, MLflow and the model's repository: S3_ENDPOINT, MLFLOW_TRACKING_URI and GIT_URL (an empty
repository that may be pushed to) name ones that they reach. docs/kubeflow.md says how, and which secret they need.
Without a cluster `make demo` plays the same stories on this machine."""

_HERE = {"localhost", "127.0.0.1", "::1", ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only `--backend kfp` reads."""
    parser.add_argument("--endpoint", default="", help="of the KFP API server")
    parser.add_argument("--namespace", default="", help="of the profile, on a multi-user Kubeflow")
    parser.add_argument("--token-file", type=Path, help="with a bearer token")
    parser.add_argument("--image", default="", help="of every step: make image TAG=…")


def prepare(home: Path, chosen: argparse.Namespace) -> None:
    """The default backend, with the pipelines uploaded; Failed when the server cannot be used."""
    told = {"endpoint": chosen.endpoint, "namespace": chosen.namespace}
    if chosen.token_file:
        told["token_file"] = str(chosen.token_file.absolute())
    lines = [f"{name} = {json.dumps(value)}" for name, value in told.items() if value]
    (home / "settings.toml").write_text("\n".join(["[backends.default]", *lines]) + "\n")
    _warn_of_addresses()
    _check(home)
    image = ["--image", chosen.image] if chosen.image else []
    run(sys.executable, "-m", "pipelines.compile", str(home / "packages"), *image)
    console.print(f"   pushing the pipelines to {chosen.endpoint}", markup=False)
    for package in sorted((home / "packages").iterdir()):
        version = _version(home, package)
        rules = home / "rules" / "income.yaml"
        name = package.name.partition("@")[0]
        rules.write_text(rules.read_text().replace(f"{name}@v1", f"{name}@{version}"))
        package.unlink()


def _version(home: Path, package: Path) -> str:
    """Uploaded under its digest: whatever versions that server has, this one is what the rules name."""
    argv = [sys.executable, "-m", "service.cli", "--home", str(home), "pipelines", "push", "--json", str(package)]
    (item,) = json.loads(run(*argv))["items"]
    return str(item["version"])


def _check(home: Path) -> None:
    """As `kfp-triggers doctor` does, of this backend alone."""
    findings = backends(load(home))["default"].check()
    for one in findings:
        console.print(f"   {'good' if one.good else 'BAD '} {one.what}: {one.detail}", markup=False)
    if bad := [one for one in findings if not one.good]:
        raise Failed(f"this Kubeflow Pipelines cannot be played on: {bad[0].what}: {bad[0].detail}")


def _warn_of_addresses() -> None:
    names = ("S3_ENDPOINT", "MLFLOW_TRACKING_URI", "GIT_URL")
    near = [name for name in names if (urlsplit(os.environ.get(name, "")).hostname or "") in _HERE]
    if near:
        told = f"not set to an address that pods elsewhere reach: {', '.join(near)}"
        more = "what stands in for them listens on this machine alone"
        console.print(f"   {told}; {more}", style="yellow", markup=False)
