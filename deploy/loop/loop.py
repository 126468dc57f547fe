"""`make demo-loop`: the loop that closes itself, on real parts, with nobody at the keyboard.

Brings the embedded stack up with Prometheus, pushes the model's code once, and then only lets weeks come: a file of
ids, and its labels. In two of them the world changes (`weeks`). What fires, retrains and promotes is the service's
doing. At the end a picture (PNG and HTML), and the bounds of `verdict`: exit status 1 when one is missed.

`--drift none` plays 20 weeks in which nothing changes. `--seeds 1,2,3` plays one world after the other.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parents[1] / "demo"))  # the demo's scripts are no package either

from account import kfp_triggers
from chronicle import Chronicle, chronicle
from oracle import Compared, compare
from picture import draw
from play import INTERVAL, Stage, first_training, play
from scene import Demo, Failed, configure_hook, console, prepare
from verdict import findings
from weeks import FEATURE_STORE, INCOMING, LABELS, World

from service.embedded import Grouping, Watching
from service.errors import Refused
from service.settings import LocalSettings
from service.supervise import Supervisor
from service.up import Wanted, addresses, bring_up

HERE = Path(__file__).parent
ALERTS = HERE.parent / "prometheus" / "rules.yml"
#: Of numpy and scikit-learn: runs go side by side, and a fit with two threads takes 1.7 times the CPU of one with one.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CALM_WEEKS = 20  #: of a world in which nothing changes

SOURCES = """\
apiVersion: kfp-triggers/v1
sources:
  uploads: {{type: minio, token: {{file: secrets/uploads}}, buckets: [user-ids, labels]}}
  model-repo:
    type: git
    secrets: [{{file: secrets/model-repo}}]
    repositories: {{{repository}: {{url: "{url}"}}}}
  drift: {{type: alertmanager, token: {{file: secrets/drift}}}}
"""


def wanted() -> Wanted:
    """All parts, in a hurry; Alertmanager waits three seconds, in which the labels of an alert's week can come."""
    return Wanted(
        minio=True,
        mlflow=True,
        alertmanager=Grouping("3s", "1s", "1h"),
        prometheus=Watching(ALERTS, f"{INTERVAL:g}s"),
        buckets=(INCOMING, LABELS, FEATURE_STORE, "predictions"),
        port=0,
        env={
            "KFP_TRIGGERS_PACE__WATCH": "0.5",
            "KFP_TRIGGERS_LOCAL__MAX_PARALLEL": "4",  # two files, labels, and a training
            "KFP_TRIGGERS_LOCAL__ENV": json.dumps([*LocalSettings().env, "OMP_*", "OPENBLAS_*"]),
            **ONE_THREAD,
            "KFP_TRIGGERS_LOG__FORMAT": "json",
        },
    )


def history(demo: Demo, world: World) -> Compared:
    """Week 0 into the buckets, by a process of its own, for Feast; meanwhile what the loop is compared with."""
    argv = [sys.executable, str(HERE / "weeks.py"), "--seed", str(world.seed), "--rows", str(world.rows)]
    env = {**os.environ, **demo.s3.environment()}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as filling:
        with threadpool_limits(1):
            compared = compare(world)
        said, _ = filling.communicate()
    if filling.returncode:
        raise Failed(f"week 0 could not be made:\n{said}")
    return compared


@contextmanager
def staged(world: World, home: Path) -> Iterator[tuple[Stage, Supervisor]]:
    """The stack up in an empty folder, with nothing on it yet, and who keeps it up; down again afterwards."""
    bare, clone = prepare(home, sources=SOURCES, rules=HERE / "rules" / "loop.yaml")
    with Supervisor(home / "data", say) as supervisor, httpx.Client() as http:
        stack = bring_up(supervisor, wanted())
        demo = Demo(stack=stack, bare=bare, clone=clone, now=datetime.now(UTC), pause=0.5, http=http)
        configure_hook(demo)
        yield Stage(demo, world), supervisor


def one_world(world: World, home: Path, out: Path, *, stay: bool) -> bool:
    """Play it, draw it, judge it; whether every bound holds and `verify` is clean."""
    began = time.monotonic()
    say(f"seed {world.seed}: {world.weeks} weeks of {world.rows:,} people, {'' if world.changes else 'no '}changes")
    with staged(world, home) as (stage, supervisor):
        try:
            good = _story(stage, out, began)
        except (Failed, httpx.HTTPError):
            _where(stage)
            raise
        if stay:
            _where(stage)
            say("Ctrl-C ends it")
            supervisor.wait()
    return good


def _story(stage: Stage, out: Path, began: float) -> bool:
    compared = history(stage.demo, stage.world)
    say(f"ready after {time.monotonic() - began:.0f} s")
    trained = first_training(stage)
    say(f"run {trained['run_key']} trained the first champion  ({time.monotonic() - began:.0f} s)")
    play(stage, lambda week, run: tell(stage, compared, week, run, time.monotonic() - began))
    good = conclude(chronicle(stage, compared), out)
    said, code = kfp_triggers(stage.demo, "verify")
    if code:
        console.print(said, style="red", markup=False)
    say(f"{time.monotonic() - began:.0f} s in all")
    return good and code == 0


def conclude(told: Chronicle, out: Path) -> bool:
    """The picture, what happened, and the bounds; whether all of them hold."""
    found = findings(told)
    out.mkdir(parents=True, exist_ok=True)
    files = draw(told, found, threshold(), out)
    for one in told.happenings:
        say(f"after week {one.week:2}: {one.kind:8} {one.text}")
    for one in found:
        console.print(f"   {'good' if one.good else 'BAD '} {one.text}", style="" if one.good else "red", markup=False)
    for path in files:
        say(str(path.absolute()))
    return all(one.good for one in found)


def tell(stage: Stage, compared: Compared, week: int, run: Mapping[str, Any], seconds: float) -> None:
    """A line for a week that is over."""
    drift = [one for one in stage.demo.get("observations", kind="drift")["items"] if one["run_key"] == run["run_key"]]
    columns = drift[0]["figures"]["columns"] if drift else {}
    feature = max(columns, key=lambda name: columns[name]["psi"], default="")
    psi = f"PSI {columns[feature]['psi']:6.3f} {feature:15}" if feature else "not watched"
    say(
        f"week {week:2}  v{run['params']['model_version']}  {psi}  accuracy {stage.accuracy[week]:.3f}"
        f"  oracle {compared.weekly[week - 1]:.3f}  ({seconds:.0f} s)"
    )


def threshold() -> float:
    """Above which PSI the shipped rule fires, read from it."""
    found = re.search(r"alert: FeatureDrift.*?\) > ([\d.]+)\n", ALERTS.read_text(), re.DOTALL)
    if found is None:
        raise Failed(f"{ALERTS} has no threshold of FeatureDrift")
    return float(found[1])


def say(text: str) -> None:
    """A line of the telling."""
    console.print(f"   {text}", markup=False)


def _where(stage: Stage) -> None:
    for line in addresses(stage.demo.stack):
        say(line)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1", help="numbers, by commas: a world each")
    parser.add_argument("--drift", choices=("both", "none"), default="both")
    parser.add_argument("--weeks", type=int, help="how many files; else 14, or 20 without changes")
    parser.add_argument("--out", type=Path, default=Path("demo-loop"), help="where the picture goes")
    parser.add_argument("--stay", action="store_true", help="keep the last world up and print the addresses")
    chosen = parser.parse_args()
    calm = World(changes=False, weeks=chosen.weeks or CALM_WEEKS)
    world = calm if chosen.drift == "none" else World(weeks=chosen.weeks or World.weeks)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    good = True
    for seed in seeds:
        out = chosen.out / f"seed-{seed}" if len(seeds) > 1 else chosen.out
        good = _in_a_home(replace(world, seed=seed), out, stay=chosen.stay and seed == seeds[-1]) and good
    return 0 if good else 1


def _in_a_home(world: World, out: Path, *, stay: bool) -> bool:
    home, good = Path(tempfile.mkdtemp(prefix="kfp-triggers-loop-")), False
    try:
        good = one_world(world, home, out, stay=stay)
    except (Refused, Failed, httpx.HTTPError) as error:
        console.print(str(error), style="red", markup=False)
    except KeyboardInterrupt:
        console.print("interrupted")
    finally:
        if good:
            shutil.rmtree(home, ignore_errors=True)
        else:
            say(f"its files are in {home}")
    return good


if __name__ == "__main__":
    raise SystemExit(main())
