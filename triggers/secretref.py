"""Where a secret is, never the secret: `{env: NAME}` or `{file: PATH}`, in `sources.yaml` and in a rule's `secrets`.

Read by `triggers.sourcefile`, by the settings of a source that has secrets of its own, and by `triggers.rules`;
resolved by `service`.
"""

import re
from dataclasses import dataclass
from typing import Any

HOW = "write {env: NAME} or {file: PATH}"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class SecretReference:
    """Where a secret is: one of the two is set."""

    env: str = ""
    file: str = ""

    def __str__(self) -> str:
        """In one word, as settings, rows and people see it: `env:NAME` or `file:PATH`."""
        return f"env:{self.env}" if self.env else f"file:{self.file}"

    @classmethod
    def read(cls, word: str) -> "SecretReference":
        """The reference back from its word."""
        kind, _, where = word.partition(":")
        return cls(env=where) if kind == "env" else cls(file=where)


def complaint(value: Any) -> str:
    """What is wrong with a reference, without repeating what may be a secret."""
    if not isinstance(value, dict):
        return f"a secret is never written into this file: {HOW}"
    if len(value) != 1 or next(iter(value)) not in ("env", "file"):
        return HOW
    [(kind, where)] = value.items()
    if not isinstance(where, str) or not where:
        return f"`{kind}:` must be a text that is not empty"
    if kind == "env" and not _VARIABLE.fullmatch(where):
        return "`env:` must be the name of an environment variable, not its value"
    return ""


def reference(value: Any) -> SecretReference:
    """For a setting of a source; ValueError with what is wrong."""
    if said := complaint(value):
        raise ValueError(said)
    return SecretReference(**value)
