"""Fixtures of the fault suite, which of it runs when, and the report that `make faults` prints."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.report import Account, Report
from faults.stage import Mother, Stage, push, staged, template
from kfpserver import Stub, kfp_stub


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where this folder is named on the command line, as `make faults` does."""
    parser.addoption("--report", type=Path, default=None, help="Write the table of faults to this file.")
    parser.addoption("--seed", type=int, default=None, help="Of all that is random; told in the report.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: a row of the fault matrix; all of them: make faults")
    config.addinivalue_line("markers", "quick: of these, what `make test` runs too")
    seed = config.getoption("--seed", default=None)
    report = Report(random.SystemRandom().randrange(10_000) if seed is None else seed)
    report.file = config.getoption("--report", default=None)
    config.pluginmanager.register(report, "fault-report")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rows that take long run only where they are asked for."""
    if "faults" in (config.option.markexpr or ""):
        return
    slow = [item for item in items if item.get_closest_marker("faults") and not item.get_closest_marker("quick")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def mother() -> Iterator[Mother]:
    one = Mother()
    yield one
    one.close()


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def kfp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("kfp"), "--pending", "0.1", "--running", "0.2") as one:
        push(one)
        yield one


@pytest.fixture
def stage(tmp_path: Path, kfp: Stub, mother: Mother, empty_home: Path) -> Iterator[Stage]:
    one = staged(tmp_path, kfp, mother, empty_home)
    yield one
    one.close()
    kfp.heal()
    kfp.reset("scripts")


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Account:
    """This test's lines in the report."""
    report: Any = request.config.pluginmanager.get_plugin("fault-report")
    found: Account = report.of(request.node.nodeid)
    return found


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """By the seed, and another one for each test."""
    report: Any = request.config.pluginmanager.get_plugin("fault-report")
    return random.Random(f"{report.seed} {request.node.name}")
