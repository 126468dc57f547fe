"""The pipeline `example-container`: a step that is a program in an image, in whatever language it is written.

    checksum

Compiled by compile.py on demand. Only a cluster runs it: kfp.local's subprocess runner, and so the local backend,
runs Python components alone and refuses this one.
"""

from typing import NamedTuple

from kfp import dsl

from pipelines.placement import IMAGE, Placement

NAME = "example-container"

# KFP puts values into `command` and `args`: as arguments of the script they are data, in its text they would be code.
SCRIPT = 'mkdir -p "$(dirname "$2")" && printf %s "$1" | sha256sum | cut -d " " -f 1 > "$2"'


class Outputs(NamedTuple):
    """What a run gives back."""

    digest: str


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp has no types
def checksum(text: str, digest: dsl.OutputPath(str)) -> dsl.ContainerSpec:  # type: ignore[valid-type]  # KFP's way to name a file
    """The SHA-256 of a text, written to the file that KFP reads the output from."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-ec", SCRIPT, "checksum"], args=[text, digest])


def container_component(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed. The step needs no credentials, so it gets none."""

    @dsl.pipeline(name=NAME, description="A container component: the SHA-256 of a text.")  # type: ignore[untyped-decorator]  # kfp has no types
    def pipeline(text: str) -> Outputs:
        made = checksum(text=text)
        made.set_container_image(placement.image)
        return Outputs(digest=made.outputs["digest"])

    return pipeline
