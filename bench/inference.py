"""`python bench/inference.py [--quick]`: what scoring a file costs beside a bare script, and how it grows, as Markdown.

Each step is a process of its own, as KFP starts it; its work and its imports are measured apart. The bare script does
the same on the same data on the same MinIO in one process. The two take turns, each first in half of the rounds, and
the ratio is the median of the rounds' ratios. Then ten times the rows: memory, time, and the bytes of four shards.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scoringworld import BUCKET, MILLION, MODEL, NOW, World, fetched, ids, world

STEPS = ("read_data", "retrieve_features", "run_inference", "write_data")


@dataclass(frozen=True)
class Cost:
    """Seconds of imports, of work and of CPU in the work, and the largest memory in MiB."""

    imports: float
    work: float
    cpu: float
    peak: float


def step(name: str, given: dict[str, object]) -> Cost:
    """One step in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("scoringstep.py")), name, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def scored(here: World, key: str, shards: int = 1) -> tuple[dict[str, Cost], str]:
    """The four steps, one after the other, and the digest of the output; of several shards the sum, and the peak."""
    given = {"bucket": BUCKET, "key": key, "as_of": NOW.isoformat(), "model": MODEL, "shards": shards}
    given |= {"requested": str(here.home / "requested"), "output": f"out/{key}"}
    numbers = range(1, shards + 1) if shards > 1 else [0]
    parts = {kind: [str(here.home / f"{kind}-{number}") for number in numbers] for kind in ("predictions", "sketch")}
    costs = {"read_data": [step("read_data", given)], "retrieve_features": [], "run_inference": []}
    for place, number in enumerate(numbers):
        of_shard = given | {"shard": number, "features": str(here.home / "features")}
        of_shard |= {kind: paths[place] for kind, paths in parts.items()}
        for name in ("retrieve_features", "run_inference"):
            costs[name].append(step(name, of_shard))
    whole = given | {"all_predictions": parts["predictions"], "all_sketches": parts["sketch"]}
    costs["write_data"] = [step("write_data", whole)]
    return {name: together(each) for name, each in costs.items()}, hashlib.sha256(fetched(f"out/{key}")).hexdigest()


def bare(here: World, key: str) -> Cost:
    """The bare script."""
    given = {"bucket": BUCKET, "key": key, "as_of": NOW.isoformat(), "model": MODEL, "output": "out/bare"}
    files = {"config": str(here.home / "feature_store.yaml"), "predictions": str(here.home / "bare.parquet")}
    return step("bare", given | files)


def together(costs: Iterable[Cost]) -> Cost:
    """One after the other."""
    each = list(costs)
    imports, work, cpu = (sum(getattr(one, name) for one in each) for name in ("imports", "work", "cpu"))
    return Cost(imports, work, cpu, max(one.peak for one in each))


def beside(here: World, key: str, rounds: int) -> str:
    """Components and bare script in turn."""
    ours, theirs = [], []
    for number in range(rounds):
        for mine in (True, False) if number % 2 else (False, True):
            if mine:
                ours.append(scored(here, key)[0])
            else:
                theirs.append(bare(here, key))
    sums = [together(costs.values()) for costs in ours]
    rows = [shown(name, [costs[name] for costs in ours]) for name in STEPS]
    rows += [shown("**the components**", sums), shown("**the bare script**", theirs)]
    ratios = {
        name: [getattr(mine, name) / getattr(other, name) for mine, other in zip(sums, theirs, strict=True)]
        for name in ("work", "cpu")
    }
    told = (
        f"Work of the components / of the bare script: **{statistics.median(ratios['work']):.2f}** "
        f"(rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios['work'])}); CPU alone: "
        f"**{statistics.median(ratios['cpu']):.2f}**\n"
    )
    return table(["step", "work, s †", "CPU, s †", "imports, s †", "peak, MiB"], rows) + "\n" + told


def growing(here: World, sizes: Sequence[int], shards: int) -> str:
    """The steps by the number of rows, then the larger file again in shards."""
    found = {rows: scored(here, ids(here, rows)) for rows in sizes}
    cut = scored(here, ids(here, sizes[-1]), shards)
    runs = {f"{rows:,}": costs for rows, (costs, _) in found.items()} | {f"{sizes[-1]:,} in {shards} shards": cut[0]}
    rows = [
        [label, *(f"{costs[name].work:.1f}" for name in STEPS), f"{together(costs.values()).work:.1f}",
         f"{together(costs.values()).cpu:.1f}", f"{max(cost.peak for cost in costs.values()):.0f}"]
        for label, costs in runs.items()
    ]  # fmt: skip
    first, last = (together(found[rows][0].values()) for rows in (sizes[0], sizes[-1]))
    times = sizes[-1] / sizes[0]
    told = (
        f"Time for {times:g} times the rows: {last.work / first.work / times:.2f} of linear, CPU "
        f"{last.cpu / first.cpu / times:.2f}. The {shards} shards' output and the whole's: "
        f"**{'the same bytes' if cut[1] == found[sizes[-1]][1] else 'DIFFERENT'}**.\n"
    )
    return table(["rows", *STEPS, "all, s †", "CPU, s †", "largest peak, MiB"], rows) + "\n" + told


def shown(name: str, costs: Sequence[Cost]) -> list[str]:
    """Medians of the rounds, and the largest peak."""
    medians = [statistics.median(getattr(cost, part) for cost in costs) for part in ("work", "cpu", "imports")]
    return [name, *(f"{seconds:.2f}" for seconds in medians), f"{max(cost.peak for cost in costs):.0f}"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, with an empty line behind."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Prints each table when it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["beside", "growing"], help="one of the two tables only")
    chosen = parser.parse_args()
    million = MILLION // 10 if chosen.quick else MILLION
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, load {load:.1f} at the start. † depends on the machine.\n")
    with world(10 * million) as here:
        if chosen.part != "growing":
            print(f"{million:,} ids of {10 * million:,} people:\n")
            print(beside(here, ids(here, million), 1 if chosen.quick else chosen.rounds), flush=True)
        if chosen.part != "beside":
            print(growing(here, [million, 10 * million], 4), flush=True)


if __name__ == "__main__":
    main()
