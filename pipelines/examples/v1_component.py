"""The pipeline `example-v1-component`: a component of KFP v1, from its `component.yaml`, in a pipeline of KFP v2.

    count_lines

Compiled by compile.py on demand. Only a cluster runs it, as every step that is a program in an image.
"""

from pathlib import Path
from typing import NamedTuple

from kfp import dsl

from pipelines.placement import Placement
from pipelines.v1_component import load_v1

NAME = "example-v1-component"
COMPONENT = Path(__file__).parent / "count_lines.yaml"


class Outputs(NamedTuple):
    """What a run gives back."""

    lines: int


def v1_component(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline. The image is the component's own, and it needs no credentials."""
    count_lines = load_v1(COMPONENT.read_text())

    @dsl.pipeline(name=NAME, description="A component of KFP v1: the lines of an object that match.")  # type: ignore[untyped-decorator]  # kfp has no types
    def pipeline(source: str, pattern: str = ".") -> Outputs:
        counted = count_lines(source=source, pattern=pattern)
        counted.set_caching_options(False)  # the object may have changed
        placement.repeat(counted)
        return Outputs(lines=counted.outputs["lines"])

    return pipeline
