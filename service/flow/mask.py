"""What a backend or a report says of a run that was given secrets, with the secrets taken out.

Called wherever such words come in: by `submit`, `watch` and `record`, and by the command that shows a log. The values
are read anew; where they cannot be, or are not those that the run was given, nothing is repeated at all.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from service.errors import Permanent, ServiceError
from service.ports import App, Observed
from service.records import RunRecord

HIDDEN = "…"
SHORTEST = 4  #: characters: taking out less would leave no word whole
UNKNOWN = "(not shown: the run's secrets cannot be read now, or have changed since it was given them)"


def hidden(app: App, item: RunRecord, value: Any) -> Any:
    """The same texts, lists and maps without the run's secrets; of bytes, too."""
    if not item.secrets:
        return value
    try:
        return without(value, given(app, item))
    except ServiceError:
        return _each(value, lambda _: UNKNOWN)


def given(app: App, item: RunRecord) -> Collection[str]:
    """The values that the run was given. Temporary when they cannot be read now; Permanent when they are others now."""
    if not item.secrets:
        return ()
    values = app.secrets.values(item.pipeline, item.secrets)
    if digest_of(item.run_key, values) != app.ledger.runs.given(item.run_key):
        raise Permanent("the run's secrets have changed since it was given them")
    return values.values()


def digest_of(run_key: str, values: Mapping[str, str]) -> str:
    """By which a run's secrets are known again: slow to guess from, one for all of them, and another for each run."""
    told = json.dumps(dict(values), sort_keys=True).encode()
    return hashlib.scrypt(told, salt=run_key.encode(), n=2**14, r=8, p=1).hex()


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
