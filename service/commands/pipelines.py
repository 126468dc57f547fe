"""`kfp-triggers pipelines`: bring compiled pipelines to a backend, and look at those that it has."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from service.commands.show import BAD, USAGE, AsJson, document, fail, fields, say, settings, table, told

if TYPE_CHECKING:
    from service.packages import Compiled
    from service.ports import Backend

app = typer.Typer(help="Compiled pipelines: bring them to a backend, look at those that it has.", no_args_is_help=True)

OnBackend = Annotated[str, typer.Option("--backend", help="A backend's name, as in `[backends.NAME]`, or local.")]
T = TypeVar("T")

_AGAIN, _SAID = 1.0, 5.0  #: seconds between two tries of --wait, and between two lines of it
_SHORT = 12  #: digits of a digest that make a version


@app.command()
def push(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Compiled YAML, or folders of it; else the shipped pipelines.")
    ] = None,
    backend: OnBackend = "default",
    version: Annotated[str | None, typer.Option(help="Of all of them; else each one's digest, its beginning.")] = None,
    image: Annotated[str | None, typer.Option(help="Of every step, where the shipped ones are compiled.")] = None,
    secret: Annotated[str | None, typer.Option(help="Kubernetes secret of every step, likewise.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the backend answers and has each version.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that --wait may take.")] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Upload pipelines as versions. A version never changes: the same name with other content is refused."""
    if version == "latest":
        fail("`latest` is no version: it stands for the newest one", USAGE)
    if paths and (image or secret):
        fail("--image and --secret are for compiling the shipped pipelines: leave them out beside a PATH", USAGE)
    with told():
        target, patience = _backend(backend), _Patience(timeout if wait else 0.0)
        with _files(paths or [], image, secret, target.kind == "local") as files:
            found = [_read(path) for path in files]
        items = [_push(target, version or package.digest[:_SHORT], package, body, patience) for package, body in found]
        if wait:
            for item in items:
                _await(target, item, patience)
    if as_json:
        document({"backend": backend, "items": items})
    else:
        _print(items, backend)
    if any(item["problem"] for item in items):
        raise typer.Exit(BAD)


@app.command("list")
def list_pipelines(
    name: Annotated[str, typer.Argument(help="Only of this pipeline.")] = "",
    backend: OnBackend = "default",
    as_json: AsJson = False,
) -> None:
    """By name, and of each the newest version first."""
    with told():
        found = _backend(backend).versions(name)
    if as_json:
        document({"items": [vars(one) for one in found]})
        return
    rows = [(one.pipeline, one.version, one.created_at, one.digest[:_SHORT]) for one in found]
    table(("pipeline", "version", "created", "digest"), rows)


@app.command("show")
def show_pipeline(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    backend: OnBackend = "default",
    as_json: AsJson = False,
) -> None:
    """What a version takes, and what it is."""
    with told():
        target = _backend(backend)
        found = target.pipeline(reference)
        own = next((one.id for one in target.versions(found.name) if one.version == found.version), "")
    facts: dict[str, Any] = {"pipeline": found.name, "version": found.version, "digest": found.digest, "id": own}
    facts |= {"images": list(found.images)}
    if as_json:
        document(facts | {"inputs": {name: vars(one) for name, one in found.inputs.items()}})
        return
    fields(facts)
    print()
    rows = [
        (name, one.type, "" if one.optional else "yes", "" if one.default is None else repr(one.default))
        for name, one in found.inputs.items()
    ]
    table(("input", "type", "required", "default"), rows)


def _backend(name: str) -> "Backend":
    from service.errors import Refused
    from service.wiring import backends

    found = backends(settings())
    if name not in found:
        raise Refused(f"there is no backend {name}; there is {', '.join(sorted(found))}")
    return found[name]


@contextmanager
def _files(paths: Sequence[Path], image: str | None, secret: str | None, local: bool) -> Iterator[list[Path]]:
    """Those that were named, or the shipped pipelines, compiled for as long as the block lasts."""
    if paths:
        yield [file for path in paths for file in _below(path)]
        return
    with tempfile.TemporaryDirectory(prefix="kfp-triggers-") as folder:
        _compile(Path(folder), image, secret, local)
        yield _below(Path(folder))


def _below(path: Path) -> list[Path]:
    from service.errors import Refused

    if not path.is_dir():
        return [path]
    if not (found := sorted(path.glob("*.yaml"))):
        raise Refused(f"there is no .yaml file in {path}")
    return found


def _compile(folder: Path, image: str | None, secret: str | None, local: bool) -> None:
    """In a process of its own: the service never imports pipeline code. -P: nor what lies in the current folder.

    On the local backend no step is lost and started anew: what ends one is its own error, which would end it again.
    """
    from service.errors import Refused

    argv = [sys.executable, "-P", "-m", "pipelines.compile", str(folder)]
    for option, value in (("--image", image), ("--secret", secret)):
        argv += [option, value] if value else []
    argv += ["--retries", "0"] if local else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"the shipped pipelines do not compile: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def _read(path: Path) -> "tuple[Compiled, bytes]":
    from service.errors import Refused
    from service.packages import AT_MOST, compiled

    try:
        with path.open("rb") as file:
            content = file.read(AT_MOST + 1)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from error
    return compiled(content, str(path)), content


class _Patience:
    """How long a backend that does not answer is asked again."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._said = time.monotonic()

    def ask(self, question: Callable[[], T]) -> T:
        """The answer; Temporary when the time is over."""
        from service.errors import Temporary

        while True:
            try:
                return question()
            except Temporary as error:
                if time.monotonic() + _AGAIN >= self._until:
                    raise
                self._say(error.detail)
            time.sleep(_AGAIN)

    def _say(self, detail: str) -> None:
        if time.monotonic() - self._said >= _SAID:
            self._said = time.monotonic()
            say(f"waiting for another {self._until - self._said:.0f} s at most: {detail}", to=sys.stderr)


def _push(target: "Backend", version: str, package: "Compiled", content: bytes, patience: _Patience) -> dict[str, Any]:
    """What became of one: `uploaded`, unchanged, or with a `problem`."""
    from service.errors import Permanent

    item = {"pipeline": package.name, "version": version, "digest": package.digest, "warnings": package.warnings}
    try:
        # An upload without an answer may have been one: asked again, it is there with this content.
        uploaded = patience.ask(lambda: target.push(package.name, version, content))
    except Permanent as error:
        return item | {"uploaded": False, "problem": error.detail}
    return item | {"uploaded": uploaded, "problem": ""}


def _await(target: "Backend", item: dict[str, Any], patience: _Patience) -> None:
    from service.errors import Permanent, Temporary

    def resolve() -> None:
        try:
            target.pipeline(f"{item['pipeline']}@{item['version']}")
        except Permanent as error:
            raise Temporary(error.detail) from error

    if not item["problem"]:
        patience.ask(resolve)


def _print(items: Sequence[dict[str, Any]], backend: str) -> None:
    for item in items:
        name = f"{item['pipeline']}@{item['version']}"
        for warning in item["warnings"]:
            say(f"warning: {name}: {warning}")
        if item["problem"]:
            say(item["problem"], to=sys.stderr)
        elif item["uploaded"]:
            say(f"{name} is now on {backend}")
        else:
            say(f"{name} is on {backend} already, unchanged")
