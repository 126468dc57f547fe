"""`sources.yaml`: who may send, by what credential, and what of it is wanted.

Called by `service.rulebook`, which also resolves the secrets: here they are only names of environment variables and
files. Everything that is wrong is said at once, with its line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from triggers import redaction
from triggers.secretref import HOW, SecretReference, complaint
from triggers.source import SourceType
from triggers.sources import SOURCES
from triggers.yamlfile import Document, Path, Problem, Problems, read

API_VERSION = "kfp-triggers/v1"
#: Designed, not built: naming them here tells a reader "not yet" instead of "unknown".
NOT_BUILT = frozenset({"gitea", "bitbucket", "cloudevents", "schedule", "run"})

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OURS = ("type", "token", "secrets", "redact")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A configured sender."""

    name: str
    type: str
    config: BaseModel  #: an instance of its type's `config`
    secrets: tuple[SecretReference, ...]  #: any of them authenticates; empty only under `auth: none`
    redact: tuple[str, ...] = ()  #: what of a delivery is not to be kept, see `triggers.redaction`


def load_sources(text: str, file: str) -> Mapping[str, Source]:
    """Every source by its name, or Problems with all that is wrong."""
    document = read(text, file)
    problems: list[Problem] = []
    sources: dict[str, Source] = {}
    for name, body in _sources(document, problems).items():
        source = _source(document, name, body, problems)
        if source is not None:
            sources[name] = source
    if problems:
        raise Problems(problems)
    return sources


def _sources(document: Document, problems: list[Problem]) -> dict[str, Any]:
    value = document.value
    if not isinstance(value, dict):
        problems.append(document.problem((), f"must be a mapping with `apiVersion: {API_VERSION}` and `sources:`"))
        return {}
    if value.get("apiVersion") != API_VERSION:
        problems.append(document.problem(("apiVersion",), f"must be `{API_VERSION}`"))
    problems += [
        document.problem((key,), "unknown key; there are apiVersion and sources")
        for key in value
        if key not in ("apiVersion", "sources")
    ]
    sources = value.get("sources")
    if not isinstance(sources, dict):
        problems.append(document.problem(("sources",), "must be a mapping of a name to a source"))
        return {}
    return sources


def _source(document: Document, name: str, body: Any, problems: list[Problem]) -> Source | None:
    path: Path = ("sources", name)
    before = len(problems)
    if not _NAME.fullmatch(name):
        problems.append(document.problem(path, "a name is lower-case letters, digits and -, at most 63 of them"))
    if not isinstance(body, dict):
        problems.append(document.problem(path, "must be a mapping with at least `type:`"))
        return None
    kind = _kind(document, path, body.get("type"), problems)
    secrets = _secrets(document, path, body, problems)
    redact = _redact(document, path, body.get("redact", []), problems)
    if kind is None:
        return None
    config = _config(document, path, kind, body, problems)
    if config is None or len(problems) > before:
        return None
    return Source(name=name, type=kind.name, config=config, secrets=secrets, redact=redact)


def _kind(document: Document, path: Path, word: Any, problems: list[Problem]) -> SourceType | None:
    known = ", ".join(SOURCES)
    if isinstance(word, str) and word in SOURCES:
        return SOURCES[word]
    if isinstance(word, str) and word in NOT_BUILT:
        message = f"the type `{word}` is not built yet; there are {known}"
    else:
        message = f"must be one of {known}"
    problems.append(document.problem((*path, "type"), message))
    return None


def _config(
    document: Document, path: Path, kind: SourceType, body: dict[str, Any], problems: list[Problem]
) -> BaseModel | None:
    settings = {key: value for key, value in body.items() if key not in _OURS}
    try:
        return kind.config.model_validate(settings)
    except ValidationError as error:
        problems += [document.problem((*path, *one["loc"]), _message(kind, one)) for one in error.errors()]
        return None


def _message(kind: SourceType, error: Any) -> str:
    """Pydantic's finding in our words; its own never holds the input, as `input` is another field."""
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"unknown key; a {kind.name} source has {', '.join((*_OURS, *kind.config.model_fields))}"
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["loc"] == ("auth",):
        return "can only be `none`; leave it out where there is a token"
    if error["type"] == "too_short":
        return "must hold at least one"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return str(error["msg"]).replace("Input should", "must").replace("String should", "must")


def _secrets(
    document: Document, path: Path, body: dict[str, Any], problems: list[Problem]
) -> tuple[SecretReference, ...]:
    if "token" in body and "secrets" in body:
        problems.append(document.problem((*path, "token"), "give `token:` or `secrets:`, not both"))
        return ()
    if "token" not in body and "secrets" not in body:
        if body.get("auth") != "none":
            message = f"has no credential: `token:` or a list `secrets:` ({HOW}); to go without one, say `auth: none`"
            problems.append(document.problem(path, message))
        return ()
    if body.get("auth") == "none":
        problems.append(document.problem((*path, "auth"), "there is a credential: leave out either"))
    if "token" in body:
        return _references(document, {(*path, "token"): body["token"]}, problems)
    found = body["secrets"]
    if not isinstance(found, list) or not found:
        problems.append(document.problem((*path, "secrets"), f"must be a list; in it {HOW}"))
        return ()
    return _references(document, {(*path, "secrets", i): one for i, one in enumerate(found)}, problems)


def _redact(document: Document, path: Path, found: Any, problems: list[Problem]) -> tuple[str, ...]:
    entries = found if isinstance(found, list) else [None]
    for number, entry in enumerate(entries):
        if not redaction.is_entry(entry):
            problems.append(document.problem((*path, "redact", number), f"must be a list; in it {redaction.HOW}"))
    return tuple(entries)


def _references(document: Document, found: Mapping[Path, Any], problems: list[Problem]) -> tuple[SecretReference, ...]:
    references: list[SecretReference] = []
    for path, value in found.items():
        if said := complaint(value):
            problems.append(document.problem(path, said))
        else:
            references.append(SecretReference(**value))
    return tuple(references)
