"""What the text of a CEL expression mentions: its paths, its calls, its macros, and where it ends in a template.

The library compiles and evaluates but tells only root names. `expression` and `template` ask this before they
compile. It cuts the text into tokens and pairs brackets; it is no parser: what is not CEL is the library's to refuse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
#: `math.ceil(x)` is a call of one dotted name, not of `ceil` on a value `math`.
NAMESPACES = frozenset({"math", "strings", "sets", "base64", "lists", "optional"})

_TOKEN = re.compile(
    r"""
    (?P<string>
        (?:[rR][bB]?|[bB][rR]) (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
      | [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    )
  | (?P<skip> \s+ | //[^\n]* )
  | (?P<number> 0[xX][0-9a-fA-F]+[uU]? | (?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]? )
  | (?P<name> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<mark> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_STRING = re.compile(r"""(["'])([^"'\\]*)\1""")
_OPENS = {"(": ")", "[": "]", "{": "}"}
_CLOSES = frozenset(_OPENS.values())
_KEYWORDS = frozenset({"true", "false", "null", "in"})


@dataclass(frozen=True)
class Token:
    """A piece of an expression."""

    kind: str  #: string, number, name or mark
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Mentions:
    """What an expression mentions."""

    paths: tuple[
        tuple[str, ...], ...
    ]  #: `("event", "labels", "team")` for `event.labels.team`, as far as it is literal
    calls: tuple[str, ...]  #: functions, methods and macros by name
    variables: frozenset[str]  #: names that a macro binds
    nested: str = ""  #: a macro, or `matches`, that stands inside another macro


def tokens(text: str, start: int = 0) -> Iterator[Token]:
    """The tokens from `start` on, blanks and comments left out."""
    for found in _TOKEN.finditer(text, start):
        kind = found.lastgroup or "mark"
        if kind != "skip":
            yield Token(kind, found[0], found.start(), found.end())


def closing_brace(text: str, start: int) -> int:
    """Where the `}` stands that ends the expression which starts at `start`; -1 if there is none."""
    open_: list[str] = []
    for token in tokens(text, start):
        if token.kind != "mark":
            continue
        if token.text in _OPENS:
            open_.append(_OPENS[token.text])
        elif token.text == "}" and not open_:
            return token.start
        elif token.text in _CLOSES and (not open_ or open_.pop() != token.text):
            return -1
    return -1


def mentions(text: str) -> Mentions:
    """Read an expression's tokens once, for all that we check."""
    row = list(tokens(text))
    paths: list[tuple[str, ...]] = []
    calls: list[tuple[int, str]] = []
    index = 0
    while index < len(row):
        if row[index].kind != "name" or row[index].text in _KEYWORDS:
            index += 1
            continue
        member = _is_member(row, index)
        steps, index = ([row[index].text], index + 1) if member else _chain(row, index)
        if _text(row, index) == "(":
            name, steps = _split_call(steps)
            calls.append((index, name))
        if steps and not member:
            paths.append(tuple(steps))
    macros = [(at, name) for at, name in calls if name in MACROS]
    bound = frozenset(_text(row, at + 1) for at, _ in macros if _text(row, at + 2) == ",")
    free = tuple(dict.fromkeys(path for path in paths if path[0] not in bound))
    return Mentions(free, tuple(dict.fromkeys(name for _, name in calls)), bound, _nested(row, macros, calls))


def _text(row: list[Token], index: int) -> str:
    return row[index].text if index < len(row) else ""


def _is_member(row: list[Token], index: int) -> bool:
    """Whether the name hangs on a value without a path of its own: `f(x).name`, but not CEL's absolute `.name`."""
    if index < 2 or row[index - 1].text != ".":
        return False
    before = row[index - 2]
    return before.kind != "mark" or before.text in _CLOSES


def _chain(row: list[Token], index: int) -> tuple[list[str], int]:
    """The literal steps from a root name on (`event.labels['team']`), and where they end."""
    steps = [row[index].text]
    index += 1
    while True:
        if _text(row, index) == "." and index + 1 < len(row) and row[index + 1].kind == "name":
            steps.append(row[index + 1].text)
            index += 2
        elif _text(row, index) == "[" and _text(row, index + 2) == "]":
            literal = _PLAIN_STRING.fullmatch(row[index + 1].text)
            if not literal:
                return steps, index
            steps.append(literal[2])
            index += 3
        else:
            return steps, index


def _split_call(steps: list[str]) -> tuple[str, list[str]]:
    """The function's name, and the path that it is called on."""
    if len(steps) == 2 and steps[0] in NAMESPACES:
        return ".".join(steps), []
    return steps[-1], steps[:-1]


def _nested(row: list[Token], macros: list[tuple[int, str]], calls: list[tuple[int, str]]) -> str:
    for at, outer in macros:
        end = _closing_bracket(row, at)
        for inside, name in calls:
            if at < inside < end and (name in MACROS or name == "matches"):
                return f"`{name}` inside `{outer}`"
    return ""


def _closing_bracket(row: list[Token], index: int) -> int:
    depth = 0
    for at in range(index, len(row)):
        if row[at].kind == "mark":
            depth += (row[at].text in _OPENS) - (row[at].text in _CLOSES)
            if depth == 0:
                return at
    return len(row)
