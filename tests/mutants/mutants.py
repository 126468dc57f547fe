"""Bugs that the suite must notice: `make mutants`, or `python tests/mutants/mutants.py [NAME …]`.

All tests that are named here must be green on a copy of the tree; then one bug after the other is put into it, and the
tests that are named for it must go red. A text that is not there exactly once, tests that cannot be collected, or a bug
that nobody notices: exit 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RED = 1  #: pytest's status when tests ran and some failed; 2 to 5 is anything else


@dataclass(frozen=True)
class Mutant:
    """One bug."""

    name: str
    file: str
    edits: Sequence[tuple[str, str]]  #: each text stands there exactly once
    tests: Sequence[str]


SYSCALLS = "tests/faults/test_syscalls.py::test_F02_the_fsync_comes_before_the_2xx[one_at_a_time]"
STORE, FLOW = "tests/service/test_store.py", "tests/service/test_flow.py"
ANSWERED = """\
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
"""
TOO_EARLY = """\
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
                __import__("time").sleep(0.2)
"""
FREE = ", table.c.due_at <= micros(taken.now), table.c.lease_until < micros(taken.now))\n            .values"
REFUSED = "    except NotUnderstood as error:\n        "
SWEEP = '    """One pass over everything that is due."""\n'
ONCE = 'unquote_plus(encoded, errors="strict")'
MINIO = "tests/triggers/sources/test_minio.py"
MUTANTS = (
    Mutant("synchronous=NORMAL", "service/store/sqlite.py", [('("wal", 2) if', '("wal", 1) if')], [SYSCALLS]),
    Mutant(
        "acknowledged before the commit",
        "service/store/writer.py",
        [(ANSWERED, ""), ('                failpoint("writer.before_commit")\n', TOO_EARLY)],
        [SYSCALLS],
    ),
    Mutant(  # early acknowledgement is what is right here: service/broker.py says why
        "late acknowledgement in Celery",
        "service/broker.py",
        [("task_acks_late=False", "task_acks_late=True")],
        ["tests/service/test_broker.py::test_the_decisions_about_celery_hold"],
    ),
    Mutant(
        "a claim without compare-and-set",
        "service/store/claims.py",
        [(FREE, ")\n            .values")],
        [f"{STORE}::test_one_of_many_claims_wins", f"{STORE}::test_a_claim_is_free_again_when_its_lease_is_over"],
    ),
    Mutant(
        "sent again without a search",
        "service/flow/submit.py",
        [("elif found := one.backend.find(item.run_key):", "elif found := list[str]():")],
        ["tests/service/test_submission.py::test_a_search_that_finds_two_keeps_the_older"],
    ),
    Mutant(
        "a transport key without the event's name",
        "triggers/sources/minio.py",
        [('what = (text(record, "eventName"), text', "what = (text")],
        [MINIO],
    ),
    Mutant("a key unquoted twice", "triggers/sources/minio.py", [(ONCE, f"unquote_plus({ONCE})")], [MINIO]),
    Mutant(
        "4xx for an authentic delivery that is not understood",
        "service/flow/receive.py",
        [
            (f"{REFUSED}return", f"{REFUSED}raise NotAuthentic from error\n        return"),
            ("from triggers.errors import NotUnderstood", "from triggers.errors import NotAuthentic, NotUnderstood"),
        ],
        ["tests/service/test_hooks.py::test_what_is_authentic_is_kept_whatever_it_says"],
    ),
    Mutant(
        "no sweep",
        "service/flow/sweep.py",
        [(SWEEP, f"{SWEEP}    return\n")],
        [f"{FLOW}::test_without_a_bell_the_sweep_does_it_all"],
    ),
    Mutant(
        "== on signatures",
        "triggers/signature.py",
        [("hmac.compare_digest(given, expected)", "given == expected")],
        ["tests/triggers/test_signature.py"],
    ),
    Mutant(
        "a repeat is known by what may not be on the disk",
        "service/store/writer.py",
        [("                self._database.doubt.settle()\n", "")],
        [f"{STORE}::test_a_repeat_is_told_that_it_is_known_only_when_it_is_in_the_file_itself"],
    ),
)


def main(names: Sequence[str]) -> int:
    """Every one of them, or those whose name holds one of these words."""
    wanted = [one for one in MUTANTS if not names or any(name in one.name for name in names)]
    began, survived = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        _copy(tree)
        status, said = _tested(tree, list(dict.fromkeys(test for one in wanted for test in one.tests)))
        if status != 0:
            print(f"the tests are not green without any bug (pytest's status {status}):\n{said}")
            return 1
        print(f"without any bug all is green ({time.monotonic() - began:.0f} s)\n")
        print("| mutant | tests | outcome | seconds |\n| --- | --- | --- | --- |", flush=True)
        for mutant in wanted:
            started, outcome = time.monotonic(), _outcome(mutant, tree)
            survived += outcome != "killed"
            cells = (mutant.name, " ".join(mutant.tests), outcome, f"{time.monotonic() - started:.0f}")
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{len(wanted) - survived} of {len(wanted)} killed in {time.monotonic() - began:.0f} s")
    return int(survived > 0)


def _outcome(mutant: Mutant, tree: Path) -> str:
    path = tree / mutant.file
    text = clean = path.read_text()
    for old, new in mutant.edits:
        if text.count(old) != 1:
            return f"{mutant.file} has {text.count(old)} times what is to be changed: {old.strip()!r}"
        text = text.replace(old, new)
    path.write_text(text)
    status, _ = _tested(tree, mutant.tests)
    path.write_text(clean)
    return "killed" if status == RED else f"SURVIVED (pytest's status {status})"


def _copy(tree: Path) -> None:
    """The files that Git knows or would take, as they are now, and the environment."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, found.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    (tree / ".venv").symlink_to(ROOT / ".venv")


def _tested(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Pytest's status, and the end of what it said. No bytecode: it knows files by whole seconds."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=tree, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout[-3000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
