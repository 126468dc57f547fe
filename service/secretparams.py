"""Secrets that a rule hands to a pipeline as parameters: who may, and their values when a run is submitted.

Fits `ports.SecretParams`. Allowed is what the platform's settings list (`secret_params`), asked when a rule file loads
and again at each submission. A value is read then and kept by nobody: not in the store, not in a log.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.errors import Permanent, Temporary
from triggers.secretref import SecretReference

AT_MOST = 8 << 10  #: bytes of one value: keys and passwords, not data
MENDED = 30.0  #: seconds after which a secret that is missing is worth another look


class AllowedSecrets:
    """By the settings of one home."""

    def __init__(self, home: Path, allowed: Mapping[str, Sequence[str]]) -> None:
        """`home` is where a relative `file:` is looked for."""
        self._home, self._allowed = home, allowed

    def forbids(self, pipeline: str, reference: str) -> str:
        """Why this pipeline may not get this secret, "" when it may."""
        for name, references in self._allowed.items():
            if _fits(name, pipeline) and any(_fits(one, reference) for one in references):
                return ""
        return (
            f"the settings do not allow `{reference}` for the pipeline `{pipeline}`: whoever runs the platform lists "
            "it under `secret_params`, see docs/existing-pipelines.md"
        )

    def values(self, pipeline: str, references: Mapping[str, str]) -> dict[str, str]:
        """By parameter. Permanent when it is not allowed, Temporary when one cannot be read."""
        for reference in references.values():
            if said := self.forbids(pipeline, reference):
                raise Permanent(said)
        return {parameter: self._value(reference) for parameter, reference in references.items()}

    def _value(self, word: str) -> str:
        reference = SecretReference.read(word)
        try:
            content = os.environ.get(reference.env, "") if reference.env else self._text(reference.file)
        except (OSError, UnicodeDecodeError) as problem:
            raise Temporary(f"cannot read {word}: {type(problem).__name__}", delay=MENDED) from problem
        value = content.rstrip("\r\n")
        if not value or len(value.encode()) > AT_MOST:
            why = "is not set or empty" if not value else f"is longer than {AT_MOST} bytes"
            raise Temporary(f"{word} {why}", delay=MENDED)
        return value

    def _text(self, file: str) -> str:
        return (self._home / file).read_text(encoding="utf-8")


def _fits(pattern: str, word: str) -> bool:
    """`*` at the end stands for any rest."""
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern
