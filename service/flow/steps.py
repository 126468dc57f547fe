"""The steps by the names that messages carry. The names are stored in brokers: they outlive the code's layout."""

from collections.abc import Callable, Mapping

from service.errors import ServiceError
from service.flow.decide import decide, decide_again
from service.flow.submit import submit
from service.log import logger
from service.ports import App

STEPS: Mapping[str, Callable[[App, str], None]] = {
    "events.decide": decide,
    "decisions.ask": decide_again,
    "runs.submit": submit,
}


def step(app: App, name: str, key: str) -> None:
    """Do one; what the world refuses is left to the sweep, which the row's due time brings along."""
    try:
        STEPS[name](app, key)
    except ServiceError as error:
        logger.warning("step_postponed", step=name, key=key, detail=error.detail)
