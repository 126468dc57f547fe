"""Strict YAML with line numbers: what `sources.yaml` and the rule files are read by.

Refuses duplicate keys, anchors and aliases (an alias bomb loads in milliseconds and explodes later), tags, several
documents, and depth over 40; keeps `2026-01-01` and `on` as the text they look like. Not a schema: the models say that.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 40


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a file, with the place and what to do."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class Problems(Exception):
    """Everything wrong in a set of files, all at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Document:
    """A file's value, and the line of every key and item in it."""

    file: str
    value: Any
    lines: dict[Path, int]

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at the path, or at its nearest known ancestor (a missing key has no line of its own)."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Problem(self.file, self.lines.get(known, 1), dotted(path), message)


def dotted(path: Path) -> str:
    """`("rules", "a", 0)` as `rules.a[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


class _Loader(yaml.SafeLoader):
    """Every plain scalar is text here: `_scalar` alone says what is a number, so that `012` and `1:30` stay text."""


_Loader.yaml_implicit_resolvers = {}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")  # longer ones stay text: no machine integer
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_CORE = {"true": True, "false": False, "null": None, "~": None, "": None}


def read(text: str, file: str) -> Document:
    """Text to a Document, or Problems with the line of each."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Problems([Problem(file, 1, "", f"larger than {MAX_BYTES} bytes: split it")])
    try:
        _refuse_aliases(text, file)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Path, int] = {(): 1}
            value = _value(node, (), lines, file) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Problems([Problem(file, line, "", f"not YAML: {error.problem or error.context}")]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Problems([Problem(file, 1, "", f"not YAML: {type(error).__name__}")]) from error
    return Document(file, value, lines)


def _refuse_aliases(text: str, file: str) -> None:
    depth = 0
    for event in _events(text):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Problems([Problem(file, line, "", "anchors and aliases are not allowed: write the value out")])
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise Problems([Problem(file, line, "", f"nested deeper than {MAX_DEPTH}")])


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_Loader)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int], file: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, file)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, file) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return _scalar(node.value) if node.style is None else node.value
    raise Problems([Problem(file, node.start_mark.line + 1, dotted(path), f"tags are not allowed: {node.tag}")])


def _scalar(text: str) -> Any:
    if text in _CORE:
        return _CORE[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int], file: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise Problems([Problem(file, line, dotted(path), "a key must be plain text")])
        key = key_node.value
        if key in result:
            raise Problems([Problem(file, line, dotted((*path, key)), "the key stands here twice")])
        lines[(*path, key)] = line
        result[key] = _value(value_node, (*path, key), lines, file)
    return result
