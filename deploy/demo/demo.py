"""`make demo`: the main job on real parts, told as four stories, with what happened printed at the end.

Brings the embedded stack up in a folder of its own, makes the people and their features, and then only does what a
user's senders do: push to a Git repository, drop a file into a bucket, post an alert to Alertmanager. What it prints it
asks the service. Exit status 1 when a story failed; nothing is left running. `--stay` keeps it up.

With `--backend kfp` the pipelines run on the Kubeflow Pipelines of `--endpoint`. Its pods must reach MinIO, MLflow and
the model's repository: S3_ENDPOINT and MLFLOW_TRACKING_URI name ones that they reach, GIT_URL an empty repository.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cluster
import httpx
from account import account
from scene import BUCKETS, Demo, Failed, configure_hook, console, people, prepare
from stories import STORIES

from service.embedded import Grouping
from service.errors import Refused
from service.supervise import Supervisor
from service.up import Wanted, addresses, bring_up


def tell(number: int, title: str, story: Callable[[Demo], str], demo: Demo) -> bool:
    """Play one story and say how it came out."""
    console.print(f"[bold]{number}. {title}[/bold]")
    began = time.monotonic()
    try:
        outcome = story(demo)
    except (Failed, httpx.HTTPError) as error:
        console.print(f"   failed after {time.monotonic() - began:.0f} s: {error}", style="red", markup=False)
        return False
    console.print(f"   {outcome}  ({time.monotonic() - began:.0f} s)", markup=False)
    return True


def play(home: Path, chosen: argparse.Namespace) -> bool:
    """Everything, in order; whether every story came out and the account is clean."""
    began, stay = time.monotonic(), chosen.stay
    bare, clone = prepare(home, os.environ.get("GIT_URL", "") if chosen.backend == "kfp" else "")
    if chosen.backend == "kfp":
        cluster.prepare(home, chosen)
    wanted = Wanted(
        minio=True,
        mlflow=not (chosen.backend == "kfp" and os.environ.get("MLFLOW_TRACKING_URI")),
        alertmanager=Grouping("0s", "1s", "2s"),
        buckets=BUCKETS,
        port=0,
        env=_pace(),
    )
    with Supervisor(home / "data", lambda line: console.print(f"   {line}", markup=False)) as supervisor:
        stack = bring_up(supervisor, wanted)
        now = datetime.now(UTC) - timedelta(seconds=1)
        demo = Demo(stack=stack, bare=bare, clone=clone, now=now)
        configure_hook(demo)
        people(demo)
        console.print(f"   ready after {time.monotonic() - began:.0f} s\n")
        # Each needs the one before it, so the first that fails is the last that is played.
        good = all(tell(number, title, story, demo) for number, (title, story) in enumerate(STORIES))
        clean = account(demo) if good else False
        console.print(
            f"\n{'every story came out' if good and clean else 'something failed'} "
            f"({time.monotonic() - began:.0f} s in all)"
        )
        if stay or not good:
            for line in addresses(stack):
                console.print(line, markup=False)
        if stay:
            console.print("Ctrl-C ends it")
            supervisor.wait()
    return good and clean


def _pace() -> dict[str, str]:
    """A demo's patience: looks at its runs twice a second."""
    return {"KFP_TRIGGERS_PACE__WATCH": "0.5", "KFP_TRIGGERS_LOG__FORMAT": "json"}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep it up and print the addresses")
    parser.add_argument("--home", type=Path, help="a new folder to play in; else a temporary one")
    parser.add_argument("--backend", choices=("local", "kfp"), default="local", help="where the pipelines run")
    cluster.add_arguments(parser)
    chosen = parser.parse_args()
    if chosen.backend == "kfp" and not chosen.endpoint:
        console.print(cluster.MISSING, style="red", markup=False)
        return 2
    home = chosen.home or Path(tempfile.mkdtemp(prefix="kfp-triggers-demo-"))
    good = False
    try:
        good = play(home.absolute(), chosen)
    except (Refused, Failed) as error:
        console.print(str(error), style="red", markup=False)
    except KeyboardInterrupt:
        console.print("interrupted")
    finally:
        if good and chosen.home is None:
            shutil.rmtree(home, ignore_errors=True)
        else:
            console.print(f"its files are in {home}", markup=False)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
