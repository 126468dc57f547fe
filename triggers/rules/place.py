"""Where in a file something stands, and the two lists that complaints about it go to.

Handed down by `load` through `shape`, `build` and `check`, so that each says what is wrong where it stands and the
whole set of files is complained about at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches

from triggers.yamlfile import Document, Path, Problem


@dataclass(frozen=True)
class Place:
    """A path in a document."""

    document: Document
    path: Path
    problems: list[Problem]
    warnings: list[Problem]

    def at(self, *steps: str | int) -> "Place":
        """The place below."""
        return replace(self, path=(*self.path, *steps))

    @property
    def line(self) -> int:
        """The line of it."""
        return self.document.problem(self.path, "").line

    def wrong(self, message: str) -> None:
        """The file cannot be loaded like this."""
        self.problems.append(self.document.problem(self.path, message))

    def warn(self, message: str) -> None:
        """It can, but somebody should look."""
        self.warnings.append(self.document.problem(self.path, message))


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing."""
    found = get_close_matches(word, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{one}`' for one in found)}?" if found else ""


def instead_of(word: str, known: Iterable[str], intro: str) -> str:
    """What ends a complaint about an unknown word: the nearest ones, and all that there are."""
    known = list(known)
    guess = near(word, known)
    return f"{guess} {intro.capitalize()} {listed(known)}" if guess else f"; {intro} {listed(known)}"


def listed(words: Iterable[str]) -> str:
    """The words as a person lists them."""
    return ", ".join(f"`{word}`" for word in words) or "none"
