"""Whether a rule may hand a secret to its pipeline as a parameter, and whether the pipeline takes it.

Called by `load` on every rule, with the platform's word on it: by default nobody may. The values are read by the
service when the run is submitted, and by nobody here.
"""

from collections.abc import Callable, Mapping

from triggers.rules.context import RESERVED
from triggers.rules.model import Rule
from triggers.rules.params import misfit
from triggers.rules.place import Place
from triggers.schema import Inputs

#: (pipeline's name, `env:NAME` or `file:PATH`) → why the platform does not allow it, "" when it does.
Forbids = Callable[[str, str], str]


def forbids_all(pipeline: str, reference: str) -> str:  # noqa: ARG001  # of `Forbids`
    """Where there are no settings that could allow it."""
    return f"the settings allow `{reference}` for no pipeline: see docs/existing-pipelines.md"


def check_secrets(rule: Rule, inputs: Inputs, place: Place, forbids: Forbids) -> None:
    """Say what may not be, at each parameter."""
    name, named, _ = rule.run.pipeline.partition("@")
    for parameter, reference in rule.run.secrets.items():
        here = place.at(parameter)
        if parameter in RESERVED:
            here.wrong("is set by kfp-triggers and holds no secret: leave it out")
        elif not named:
            here.wrong("only a pipeline that is named by `pipeline: name@version` may get secrets")
        elif said := forbids(name, reference):
            here.wrong(said)
        elif isinstance(inputs, Mapping) and (unfit := misfit(parameter, "", inputs)):
            here.wrong(unfit)
