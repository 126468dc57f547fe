"""Fixtures of the fault suite, which of it runs when, and the report that `make faults` prints."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import postgres
import pytest
from faults.report import Account, Report
from faults.stage import Mother, Stage, push, staged, template
from kfpserver import Stub, kfp_stub


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where this folder is named on the command line, as `make faults` does."""
    parser.addoption("--report", type=Path, default=None, help="Write the table of faults to this file.")
    parser.addoption("--seed", type=int, default=None, help="Of all that is random; told in the report.")
    parser.addoption(
        "--store", choices=["sqlite", "postgres"], default=None, help="Every row that it has, on this one."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: a row of the fault matrix; all of them: make faults")
    config.addinivalue_line("markers", "quick: of these, what `make test` runs too")
    config.addinivalue_line("markers", "store(name): has a meaning on this store alone, sqlite or postgres")
    config.addinivalue_line("markers", "both: quick on PostgreSQL, too")
    seed = config.getoption("--seed", default=None)
    store = config.getoption("--store", default=None) or "sqlite"
    report = Report(random.SystemRandom().randrange(10_000) if seed is None else seed, store)
    report.file = config.getoption("--report", default=None)
    config.pluginmanager.register(report, "fault-report")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The store that was asked for; in `make test` SQLite, and PostgreSQL for what is marked so."""
    if "store_kind" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("--store", default=None)
    here = {mark.name: mark for mark in metafunc.definition.iter_markers()}
    kinds = [asked] if asked else list(here["store"].args) if "store" in here else ["sqlite"]
    if not asked and "both" in here:
        kinds = ["sqlite", "postgres"]
    if kinds != ["sqlite"]:
        metafunc.parametrize("store_kind", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The rows that take long run only where they are asked for, those of one store on that one."""
    whole, asked = "faults" in (config.option.markexpr or ""), config.getoption("--store", default=None)
    if asked or whole:
        out = [item for item in items if not on_store(item, asked or "sqlite")]
    else:
        out = [item for item in items if item.get_closest_marker("faults") and not item.get_closest_marker("quick")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def on_store(item: pytest.Item, store: str) -> bool:
    """Whether a test has a meaning on this store."""
    only = item.get_closest_marker("store")
    return only is None or store in only.args


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
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, kfp: Stub, mother: Mother, empty_home: Path, store_kind: str
) -> Iterator[Stage]:
    """On PostgreSQL with a database of its own on the `postgres_server` of its module."""
    with ExitStack() as stack:
        stack.callback(kfp.reset, "scripts")
        stack.callback(kfp.heal)
        url = ""
        if store_kind == "postgres":
            server: postgres.Server = request.getfixturevalue("postgres_server")
            url = stack.enter_context(server.database("migrated"))
        one = staged(tmp_path, kfp, mother, empty_home, url)
        stack.callback(one.close)
        yield one


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
