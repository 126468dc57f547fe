"""What the loop is measured against, on the same people with the same model code, in plain scikit-learn.

Two models: one that is trained on week 0 and never again, and the oracle, trained anew each week on all labels of the
week before, whether or not anything has changed. Called by `loop`; knows nothing of the service or of the pipelines.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from weeks import World

MODEL = Path(__file__).parents[1] / "demo" / "model_repo" / "v1"  #: what the loop's repository holds, too
HELD_BACK = 0.2  #: share of a training's labels that the pipeline tests with, and the first model is not taught

Build = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Compared:
    """Accuracy of each file, from week 1 on."""

    never: list[float]  #: the first model
    weekly: list[float]  #: the oracle's

    @property
    def retrains(self) -> int:
        """How often the oracle was trained after its first time."""
        return len(self.weekly) - 1


def compare(world: World) -> Compared:
    """Play all weeks with both."""
    build, params = model_code(MODEL)
    past = world.people(0)
    first = fitted(build, params, past.head(round(len(past) * (1 - HELD_BACK))))
    never, weekly = [], []
    for week in range(1, world.weeks + 1):
        oracle, now = fitted(build, params, past), world.people(week)
        never.append(accuracy(first, now))
        weekly.append(accuracy(oracle, now))
        past = now
    return Compared(never, weekly)


def model_code(folder: Path) -> tuple[Build, dict[str, Any]]:
    """The repository's `build`, and its parameters."""
    spec = importlib.util.spec_from_file_location("loop_model", folder / "model.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build, yaml.safe_load((folder / "params.yaml").read_text())


def fitted(build: Build, params: dict[str, Any], people: pd.DataFrame) -> Any:
    """An estimator that has seen these people."""
    return build(params).fit(people.drop(columns=["user_id", "income"]), people["income"])


def accuracy(model: Any, people: pd.DataFrame) -> float:
    """The share whose income it gets right."""
    found = model.predict(people.drop(columns=["user_id", "income"]))
    return float((found == people["income"].to_numpy()).mean())
