"""How commands print: one JSON document for a machine, a table for a person, an error line with its exit status.

Exit statuses: 0 done, 1 the thing asked about is bad, 2 wrong usage, 3 could not reach what it needs.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from service.ports import App
    from service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
BAD, USAGE, UNREACHABLE = 1, 2, 3


def fail(message: str, status: int) -> NoReturn:
    """A line on standard error, and out."""
    say(message, to=sys.stderr)
    raise typer.Exit(status)


def say(text: str, *, end: str = "\n", to: TextIO | None = None) -> None:
    """Print what may hold foreign words: an object's key never moves the cursor of a terminal."""
    print(harmless(text), end=end, file=to or sys.stdout, flush=True)


def harmless(text: str) -> str:
    """The text with everything but its letters, line ends and tabs shown as U+FFFD."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


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
    except OSError as error:
        if error.filename is None:  # a closed pipe, say: typer's
            raise
        fail(f"{error.filename}: {error.strerror}", UNREACHABLE)
    except ModuleNotFoundError as error:
        if _is_ours(error.name):
            raise
        fail(f"these settings need the Python package {error.name}, which is not installed", USAGE)
    except Exception as error:
        if not _is_of_the_store(error):
            raise
        fail(f"the store cannot be used: {getattr(error, 'orig', None) or error}", UNREACHABLE)


def _is_ours(module: str | None) -> bool:
    return (module or "service").partition(".")[0] in {"service", "triggers", "pipelines"}


def _is_of_the_store(error: Exception) -> bool:
    """Asked by name: importing SQLAlchemy takes longer than most commands."""
    return any(kind.__module__ == "sqlalchemy.exc" for kind in type(error).__mro__)


def settings(*, talks: bool = False) -> "Settings":
    """The settings in force, with logs set up for them: a process `talks`, a command only warns beside its answer."""
    from service import log
    from service.settings import load

    found = load()
    quiet = not talks and found.log.level == "info"
    log.set_up(found.log.model_copy(update={"level": "warning"}) if quiet else found.log)
    return found


@contextmanager
def opened(*, rings: bool = False) -> Iterator["App"]:
    """An App on the settings in force, for as long as the command lasts."""
    from service.wiring import opened as wired

    with told():
        found = settings()
        _require(found.store.url)
        with wired(found, rings=rings and found.broker.url is not None) as app:
            yield app


def _require(url: str) -> None:
    """SQLite makes a file for whoever looks: a look in the wrong folder would leave an empty store there."""
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and not Path(path).exists():
        fail(f"there is no store at {path}: run `kfp-triggers migrate`, or name another folder by --home", USAGE)


def document(data: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=_plain)
    print("".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text))


def _plain(value: Any) -> str:
    from triggers.event import rfc3339

    return rfc3339(value) if isinstance(value, datetime) else str(value)


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
        text = json.dumps(value, ensure_ascii=False, default=_plain) if isinstance(value, dict | list) else str(value)
        print(f"{name:<{width}}  {_cell(text)}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in str(value))


def parse_since(text: str | None) -> datetime | None:
    """`2026-11-21T07:00:00Z`, or how long ago: `90s`, `30m`, `6h`, `7d`."""
    if text is None:
        return None
    from datetime import UTC

    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        fail(f"not a time: {text}; write 2026-11-21T07:00:00Z, or 30m, 6h, 7d for how long ago", USAGE)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def check_state(given: str | None, states: type[StrEnum]) -> None:
    """A state that there is not would find nothing, and look like an answer."""
    words = [str(state) for state in states]
    if given is not None and given not in words:
        fail(f"there is no state {given}; there is {', '.join(words)}", USAGE)
