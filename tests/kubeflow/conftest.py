"""The stub KFP API server, and a home that sends its runs there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kfpserver import Stub, kfp_stub
from kfpworld import Place, made


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    with kfp_stub(tmp_path) as one:
        yield one


@pytest.fixture
def place(tmp_path: Path, stub: Stub, store_url: str) -> Place:
    found = made(tmp_path, stub, store_url=store_url)
    found.push()
    return found
