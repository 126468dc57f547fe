"""`python bench/kubeflow.py [--quick]`: what the service costs beside a KFP API server, as Markdown.

Against the stub of the tests, which is a process of its own and answers in some milliseconds: what is measured is ours.
The pace is the default one. Read ratios within one run; what is marked † is this machine's.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import besides  # noqa: F401 - for what importing it does
from openruns import DEFAULTS, ENDS, LOST, Cost, measured, shown
from submitting import DEFAULT, KEYS, LIMIT, QUICK, Burst, Overhead, burst, overhead

from service.log import set_up
from service.settings import LogSettings, PaceSettings
from service.store.sqlite import sqlite_module


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, with an empty line behind."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def facts() -> str:
    """When and on what."""
    cores, python, sqlite = os.cpu_count(), platform.python_version(), sqlite_module().sqlite_version
    pace, polls = PaceSettings(), DEFAULTS["polls"]
    machine = f"{cores} cores, Python {python}, SQLite {sqlite}; the stub server of the tests"
    paces = f"`watch` {pace.watch:g} s, `sweep` {pace.sweep:g} s, `settle` {pace.settle:g} s, `polls` {polls}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine}.\nDefault pace: {paces}. † depends on the machine.\n"


def watching(costs: Sequence[Cost]) -> str:
    """A row for each number of open runs."""
    head = ["open runs", "calls a minute", "CPU s a minute †", "MiB †", "end seen, s", "worst", "adopted, s", "worst"]
    rows = [_watched(one) for one in costs]
    told = f"Within the measured minute {ENDS} of the runs end, and the answers to {LOST} submissions are lost.\n"
    return told + "\n" + table(head, rows)


def _watched(one: Cost) -> Sequence[str]:
    used = (f"{one.open_runs:,}", f"{one.calls:.0f}", f"{one.cpu:.1f}", f"{one.rss:.0f}")
    return *used, *shown(one.seen), *shown(one.adopted)


def submitting(cost: Overhead, count: int) -> str:
    """The bare POST is 1."""
    named = (
        ("a bare POST of the run", cost.bare),
        ("the step that submits, with its two commits", cost.submit),
        ("all, from the notification to the run's id", cost.whole),
        ("for comparison: 512 bytes to the disk (`fdatasync`)", cost.synced),
    )
    rows = [[name, f"{value:.1f}", f"{value / cost.bare:.1f}"] for name, value in named]
    return table([f"median of {count}, in turn", "ms †", "ratio"], rows)


def bursting(costs: Sequence[Burst]) -> str:
    """A row for each burst."""
    head = ["events", "`rate`", "`sweep`, s", "stored, s †", "submitted, s †", "at best, s", "4xx, 5xx", "runs per key"]
    rows = [_burst(one) for one in costs]
    told = (
        f"A burst, on at most {KEYS} objects; more than {LIMIT:.0f} runs a second are answered with 429; no run ends.\n"
    )
    return told + "\n" + table(head, rows)


def _burst(one: Burst) -> Sequence[str]:
    asked = (f"{one.events:,}", f"{one.asked.rate:g}", f"{one.asked.sweep:g}")
    took = (f"{one.stored:.1f}", f"{one.submitted:.0f}", f"{one.at_best:.0f}")
    return *asked, *took, str(one.errors), " to ".join(map(str, sorted(set(one.per_key))))


def main() -> None:
    """Some six minutes; one with --quick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer open runs, shorter, a smaller burst")
    quick = parser.parse_args().quick
    set_up(LogSettings(level="error"))
    count, events, few, seconds = (10, 200, 20, 15.0) if quick else (50, 2000, 60, 60.0)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kfp-triggers-bench-") as made:
        folder = Path(made)
        print(facts())
        print(submitting(overhead(folder / "overhead", count), count), flush=True)
        print(bursting([burst(folder / "burst", events, QUICK), burst(folder / "default", few, DEFAULT)]), flush=True)
        # The small ones side by side: together they take a few hundredths of a core.
        costs = measured(folder, [0, 100] if quick else [0, 100, 1000], seconds)
        costs += [] if quick else measured(folder, [10_000], seconds)
        print(watching(costs), flush=True)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
