"""When a candidate may take the champion's place: the gate's parameters, checked. Called by component.py."""

import math
from dataclasses import dataclass

from pipelines.components.compare_models.figures import METRICS, Metric, metric_named
from pipelines.errors import PipelineError

MODES = ("auto", "approve", "never")


@dataclass(frozen=True)
class Rule:
    """The candidate must be better by `margin`, in no slice worse by more than `slice_margin`, and that surely enough.

    Better is more, or less for log_loss and brier. A negative margin lets a candidate through that is a little worse.
    """

    metric: str = "auc"
    margin: float = 0.0
    slices: tuple[str, ...] = ()
    slice_margin: float = 0.02
    confidence: float = 0.0  #: share of the bootstrap's draws in which the margin must hold; 0 asks for none
    mode: str = "auto"  #: what follows: `auto` promotes, `approve` asks a person, `never` only reports

    def __post_init__(self) -> None:
        """All that is wrong at once, by the names of the pipeline's parameters."""
        metric_named(self.metric)
        problems = []
        if self.mode not in MODES:
            problems.append(f"promotion must be {', '.join(MODES)}, not {self.mode[:40]!r}")
        if not math.isfinite(self.margin):
            problems.append("margin must be a number")
        if not (math.isfinite(self.slice_margin) and self.slice_margin >= 0):
            problems.append("slice_margin must be 0 or more")
        if not 0 <= self.confidence < 1:
            problems.append("confidence must be 0 (off) or a share below 1, such as 0.9")
        if problems:
            raise PipelineError("; ".join(problems))

    @property
    def figure(self) -> Metric:
        """The metric itself."""
        return METRICS[self.metric]
