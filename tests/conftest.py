"""What every test starts from: an environment without our settings in it, a home of its own, and a store of its own."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres
import pytest
from hypothesis import settings
from sidebyside import (  # noqa: F401  # hooks: pytest looks for them here
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_protocol,
    pytest_xdist_make_scheduler,
)

with contextlib.suppress(ImportError):
    import pysqlite3  # noqa: F401  # before a test loads TensorFlow, whose library would lend it an older SQLite

settings.register_profile("long", max_examples=1_000, stateful_step_count=60)  # --hypothesis-profile=long

for _name in [name for name in os.environ if name.startswith(("KFP_TRIGGERS_", "AWS_", "MLFLOW_", "FEAST_", "S3_"))]:
    del os.environ[_name]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, set as the one in force."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """One PostgreSQL for all tests."""
    with postgres.server() as one:
        postgres.migrated(one)
        yield one


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """On which store the test runs."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def store_url(request: pytest.FixtureRequest, store_kind: str) -> Iterator[str]:
    """Of a store without a row: on PostgreSQL it has the schema of now, on SQLite it is not there yet."""
    with _store(request, store_kind, "migrated") as url:
        yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, store_kind: str) -> Iterator[str]:
    """Of a store without a schema."""
    with _store(request, store_kind, "template0") as url:
        yield url


@contextmanager
def _store(request: pytest.FixtureRequest, kind: str, template: str) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('tmp_path') / 'store.db'}"
        return
    one: postgres.Server = request.getfixturevalue("postgres_server")
    with one.database(template) as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the store's promises run on both."""
    if "store_kind" in metafunc.fixturenames and postgres.on_both(metafunc.module.__name__, metafunc.function.__name__):
        metafunc.parametrize("store_kind", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(autouse=True)
def _metrics_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, once imported, puts prometheus_client into its multi-process mode for the whole process."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.delenv("prometheus_multiproc_dir", raising=False)
