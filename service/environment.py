"""The environment as settings see it: over what a running `up` left behind, with files read for `…_FILE` twins.

Called by `service.settings`, which knows what settings there are.
"""

import difflib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from service.errors import Refused

PREFIX = "KFP_TRIGGERS_"
#: Variables that are no settings: where programs lie (`service.parts`), the Git hook's (deploy/git), and what
#: Kubernetes tells every pod of a Service that is named kfp-triggers; and `service.failpoints`.
ELSEWHERE = (f"{PREFIX}PARTS__", f"{PREFIX}HOOK_", f"{PREFIX}SERVICE_", f"{PREFIX}PORT", f"{PREFIX}FAILPOINT")


def variables(home: Path) -> dict[str, str]:
    """All of them. Read layer by layer: a file in the environment is over a plain value in up.env."""
    return dict(_read_files(_up(home / "data" / "up.env"))) | dict(_read_files(os.environ))


def refuse_unknown(environ: Mapping[str, str], known: Sequence[str], plainly: Callable[[str], str]) -> None:
    """A misspelt one would otherwise be a setting that silently does not hold. `plainly`: a name as it is known."""
    unknown = [
        f"  {name}: there is no such setting{near(name, known)}"
        for name in sorted(environ)
        if name.upper().startswith(PREFIX) and plainly(name.upper()) not in known and not name.startswith(ELSEWHERE)
    ]
    if unknown:
        raise Refused("settings that cannot be used:\n" + "\n".join(unknown))


def near(name: str, known: Sequence[str]) -> str:
    """What was perhaps meant."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _up(path: Path) -> dict[str, str]:
    try:
        words = shlex.split(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs if name != f"{PREFIX}HOME"}


def _read_files(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        # A backend's files are settings of their own: they are read again and again.
        plainly = name.startswith((*ELSEWHERE, f"{PREFIX}BACKENDS__"))
        if plainly or not (name.startswith(PREFIX) and name.endswith("_FILE")):
            yield name, value
            continue
        plain = name.removesuffix("_FILE")
        if plain in environ:
            raise Refused(f"both {plain} and {name} are set: leave one out")
        try:
            yield plain, Path(value).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise Refused(f"{name}: cannot read {value}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Refused(f"{name}: {value} is not UTF-8 text") from error
