"""What a backend or a report says of a run that was given secrets, with the secrets taken out.

Called wherever such words come in: by `submit`, `watch` and `record`, and by the command that shows a log. The values
are read anew; where they cannot be, nothing is repeated at all.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from service.errors import ServiceError
from service.ports import App, Observed
from service.records import RunRecord

HIDDEN = "…"
SHORTEST = 4  #: characters: taking out less would leave no word whole


def hidden(app: App, item: RunRecord, value: Any) -> Any:
    """The same texts, lists and maps without the run's secrets; of bytes, too."""
    if not item.secrets:
        return value
    try:
        values = app.secrets.values(item.pipeline, item.secrets).values()
    except ServiceError:
        return _each(value, lambda _: "(not shown: the run's secrets cannot be read now)")
    return without(value, values)


def without(value: Any, secrets: Iterable[str]) -> Any:
    """As they are, and as JSON and Python write them. The longest first: one may be part of another."""
    forms = {form for one in secrets for form in (one, *one.splitlines(), json.dumps(one)[1:-1], repr(one)[1:-1])}
    ordered = sorted((one for one in forms if len(one) >= SHORTEST), key=len, reverse=True)

    def cleaned(text: str) -> str:
        for one in ordered:
            text = text.replace(one, HIDDEN)
        return text

    return _each(value, cleaned)


def observed_without(app: App, item: RunRecord, observed: Observed) -> Observed:
    """What a backend says of the run."""
    if not item.secrets:
        return observed
    outputs = hidden(app, item, dict(observed.outputs))
    return replace(observed, error=hidden(app, item, observed.error) if observed.error else "", outputs=outputs)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, bytes):
        return change(value.decode("utf-8", "replace")).encode()
    if isinstance(value, dict):
        return {_each(key, change): _each(one, change) for key, one in value.items()}
    return [_each(one, change) for one in value] if isinstance(value, list | tuple) else value
