"""Tests side by side: `make test` deals them to processes (pytest-xdist), a bare `pytest` plays one after the other.

A file's tests stay in one process, for they share what its fixtures brought up; so do those of `tests/acceptance` that
share a stack. What takes longest begins first, so that nothing long is left for the end. A test marked `alone` measures
time: no other runs meanwhile.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ACCEPTANCE = "tests/acceptance/"
#: Of these, one process plays some and another one the rest: two whole stacks at once are enough for a small machine.
STORIES = ("test_backlog.py", "test_loop.py", "test_demo.py")
#: What takes longest, the longest first. Tests on one stack stand together.
LONG = (
    *STORIES,
    "[local",
    "[kfp",
    "test_serving.py",
    ACCEPTANCE,
    "test_burst.py",
    "test_failpoints.py",
    "tests/faults/",
    "tests/kubeflow/",
    "tests/pipelines/",
    "tests/deploy/",
)


def scope(node: str) -> str:
    """What stays together of a node id."""
    if node.startswith(ACCEPTANCE):
        return "stories" if any(name in node for name in STORIES) else "stacks"
    return node.partition("::")[0]


def place(node: str) -> int:
    """When its turn is."""
    found = node if node.startswith(ACCEPTANCE) else node.partition("::")[0]
    return next((turn for turn, name in enumerate(LONG) if name in found), len(LONG))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: measures time, so nothing else runs meanwhile")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By `scope`, in the order in which the tests were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return ByScope(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long ones first, where others run beside them."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Beside others, or alone."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    shared = Path(item.config.option.basetemp).parent  # of all processes of this run
    with _turn(shared, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Who waits to be alone holds the gate, so that nobody new comes in before."""
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield
