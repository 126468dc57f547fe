"""What `doctor` says of this machine as a place for runs. Called by `service.local`, which adds its packages."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from service.ports import Finding


def check(runs: Path) -> Sequence[Finding]:
    """Whether kfp is there, and whether the runs' folder can be written to."""
    return [_kfp(), _place(runs)]


def _kfp() -> Finding:
    """Not imported: that takes two seconds."""
    python = f"Python {sys.version.partition(' ')[0]} at {sys.executable}"
    try:
        return Finding(what="kfp", good=True, detail=f"{importlib.metadata.version('kfp')} with {python}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(what="kfp", good=False, detail=f"is not installed for {python}: install kfp-triggers anew")


def _place(runs: Path) -> Finding:
    """A folder that is not there yet is made by the first run."""
    there = next(one for one in (runs, *runs.parents) if one.exists())
    good = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    remedy = "" if good else f": this user may not write to {there}"
    return Finding(what="runs", good=good, detail=f"{runs}{remedy}")
