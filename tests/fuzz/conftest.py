"""How long it is fuzzed: a fixed few examples in `make test`, as many minutes as one likes in `make fuzz`."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Never

import hypothesis
import pytest
import structlog
from hypothesis import HealthCheck, given, settings

FEW = 30  #: examples of each test in `make test`
ROUND = 200  #: of each seed in `make fuzz`


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where this folder is named on the command line, as `make fuzz` does."""
    parser.addoption("--fuzz-minutes", type=float, default=0.0, help="How long all tests together may take.")
    parser.addoption("--fuzz-seed", type=int, default=None, help="Of all that is random.")


@dataclass(frozen=True)
class Fuzz:
    """Plays one test for its share of the time."""

    name: str
    minutes: float
    seed: int

    def play(self, share: float, test: Callable[..., None], **strategies: Any) -> int:
        """At least one round; how many examples there were. A failure is shrunk, with its seed before it."""
        count = 0

        def counted(**drawn: Any) -> None:
            nonlocal count
            count += 1
            test(**drawn)

        began, turn, told = time.monotonic(), 0, 0.0
        while turn == 0 or time.monotonic() - began < share * self.minutes * 60:
            chosen = settings(
                max_examples=ROUND if self.minutes else FEW,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            )
            hypothesis.seed(self.seed + turn)(chosen(given(**strategies)(counted)))()
            turn += 1
            if self.minutes and (seconds := time.monotonic() - began) - told > 15:
                told = seconds
                print(f"\n{self.name}: {count} examples in {seconds:.0f} s", flush=True)
        if self.minutes:
            print(f"\n{self.name}: {count} examples, seeds {self.seed} to {self.seed + turn - 1}", flush=True)
        return count


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    minutes = request.config.getoption("--fuzz-minutes", default=0.0)
    seed = request.config.getoption("--fuzz-seed", default=None)
    if seed is None:
        seed = random.SystemRandom().randrange(10**6) if minutes else 0
    if minutes:
        print(f"\n{request.node.name}: SEED={seed}", flush=True)
    return Fuzz(request.node.name, minutes, seed)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What the service says of each request would bury how far we are."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: Any) -> Never:
    raise structlog.DropEvent
