"""How commands print: one JSON document for a machine, a table for a person, an error line with its exit status.

Exit statuses: 0 done, 1 the thing asked about is bad, 2 wrong usage, 3 could not reach what it needs.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from service.ports import App
    from service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
BAD, USAGE, UNREACHABLE = 1, 2, 3


def fail(message: str, status: int) -> NoReturn:
    """One line on standard error, and out."""
    print(message, file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def told() -> Iterator[None]:
    """What the inside refuses becomes a line and an exit status, never a traceback."""
    from service.errors import Permanent, Refused, Temporary
    from triggers.yamlfile import Problems

    try:
        yield
    except Problems as error:
        fail("\n".join(str(problem) for problem in error.problems), BAD)
    except Refused as error:
        fail(str(error), USAGE)
    except Permanent as error:
        fail(error.detail, BAD)
    except Temporary as error:
        fail(error.detail, UNREACHABLE)


def settings() -> "Settings":
    """The settings in force, with logs set up for them."""
    from service import log
    from service.settings import load

    found = load()
    log.set_up(found.log)
    return found


@contextmanager
def opened(*, rings: bool = False) -> Iterator["App"]:
    """An App on the settings in force, for as long as the command lasts."""
    from service.wiring import opened as wired

    with told():
        found = settings()
        with wired(found, rings=rings and found.broker.url is not None) as app:
            yield app


def document(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output; as wide as its content when that is not a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        # Text and not markup: an object's key may hold square brackets.
        made.add_row(*(Text(_cell(value), overflow="fold") for value in row))
    Console(width=None if sys.stdout.isatty() else 240, highlight=False).print(made)


def fields(pairs: Mapping[str, Any]) -> None:
    """Names and values below one another; empty ones left out."""
    shown = {name: value for name, value in pairs.items() if value not in ("", None, [], {}, ())}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else _cell(value)
        print(f"{name:<{width}}  {text}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = str(value)
    return "".join(character if character.isprintable() else "�" for character in text)


def parse_since(text: str | None) -> datetime | None:
    """`2026-11-21T07:00:00Z`, or how long ago: `90s`, `30m`, `6h`, `7d`."""
    if text is None:
        return None
    from datetime import UTC

    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] in units and text[:-1].isdigit():
        return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"not a time: {text}; write 2026-11-21T07:00:00Z, or 30m, 6h, 7d for how long ago", USAGE)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
