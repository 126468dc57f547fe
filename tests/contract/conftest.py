"""One server for the whole suite; what was made on it is deleted when the tests are over, however they ended."""

import os
from collections.abc import Iterator

import httpx
import pytest
from contract.packages import package
from contract.target import LONG, STATELESS, Json, Target, client_of, endpoint, settings_of, wait_of, word
from kfpserver import Stub, kfp_stub

from service.kubeflow import KubeflowBackend
from service.ports import Pipeline


def pytest_report_header() -> str:
    """Said first, so that nobody takes the stub for a server."""
    return f"KFP API server of tests/contract: {endpoint() or 'the stub'}"


@pytest.fixture(scope="session")
def kfp_stub_or_none(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub | None]:
    if endpoint():
        yield None
        return
    with kfp_stub(tmp_path_factory.mktemp("contract")) as stub:
        stub.script(LONG, running=3600)
        stub.script(STATELESS, outcome="nostate")
        yield stub


@pytest.fixture(scope="session")
def target(kfp_stub_or_none: Stub | None) -> Iterator[Target]:
    stub = kfp_stub_or_none
    settings = settings_of(os.environ, stub)
    with client_of(settings) as client:
        one = Target(settings=settings, http=client, suffix=word(10), wait=wait_of(os.environ, stub), stub=stub)
        try:
            one.get("/healthz")
        except (httpx.TransportError, AssertionError) as error:
            pytest.fail(f"no KFP API server answers at {settings.endpoint}: {error}", pytrace=False)
        try:
            yield one
        finally:
            one.clear()
        assert one.left() == [], "this server did not delete what the contract suite made there"


@pytest.fixture(scope="session")
def backend(target: Target) -> KubeflowBackend:
    return target.backend()


@pytest.fixture(scope="session")
def pipeline(target: Target, backend: KubeflowBackend) -> Pipeline:
    """A pipeline that the server has as `v1`."""
    backend.push(target.name("pipeline"), "v1", package())
    return backend.pipeline(f"{target.name('pipeline')}@v1")


@pytest.fixture(scope="session")
def open_run(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> str:
    """The id of a run that was made; on a server that executes it may have ended since."""
    return backend.create(target.job(pipeline))


@pytest.fixture(scope="session")
def ended(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> Json:
    """A run that was executed to its end; skips where nobody does that."""
    return target.executed(backend.create(target.job(pipeline, "short")))
