"""`kfp-triggers init` and `up`: from nothing to a running service on a person's own files."""

import os
import secrets
import shlex
from pathlib import Path
from typing import Annotated

import typer

from service.commands.show import fail, told

TEMPLATES = Path(__file__).parent.parent / "templates"


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")] = Path(),
) -> None:
    """Write commented sources, rules and settings to start from; never over what is there."""
    with told():
        written, kept = _write(folder)
    for path in written:
        print(f"wrote {path}")
    for path in kept:
        print(f"kept  {path}")
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    print("\nNext: put compiled pipelines into packages/ as NAME@VERSION.yaml, edit rules/, then")
    print(f"  {there}kfp-triggers rules check && kfp-triggers up --minio")


def _write(folder: Path) -> tuple[list[Path], list[Path]]:
    """What was written, and what stood there already."""
    written: list[Path] = []
    kept: list[Path] = []
    for template in sorted(path for path in TEMPLATES.rglob("*") if path.is_file()):
        target = folder / template.relative_to(TEMPLATES)
        target.parent.mkdir(parents=True, exist_ok=True)
        made = _make(target, template.read_text(encoding="utf-8"), 0o666)
        (written if made else kept).append(target)
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    for name in ("uploads", "model-repo", "alerts"):
        secret = folder / "secrets" / name
        made = _make(secret, secrets.token_urlsafe(24) + "\n", 0o600)
        (written if made else kept).append(secret)
    return written, kept


def _make(path: Path, text: str, mode: int) -> bool:
    """Write a new file; False when something stands there, be it a link that leads nowhere."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def up(
    minio: Annotated[
        bool, typer.Option("--minio", help="Bring a MinIO along (or use the one of S3_ENDPOINT).")
    ] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Bring an MLflow server along; needs --minio.")] = False,
    alertmanager: Annotated[bool, typer.Option("--alertmanager", help="Bring an Alertmanager along.")] = False,
    port: Annotated[int | None, typer.Option(help="Of the API; 0 for a free one.")] = None,
) -> None:
    """Everything on this machine: SQLite, bundled Redis, API and worker, local pipelines. Ctrl-C ends it all."""
    import service.up as stack
    from service import log, parts
    from service.embedded import Grouping
    from service.errors import Refused
    from service.settings import load

    with told():
        settings = load()
        log.set_up(settings.log)
        if not (settings.home / "sources.yaml").exists():
            fail(f"there is no sources.yaml in {settings.home}: `kfp-triggers init` writes one to start from", 2)
        redis = True
        try:
            parts.find("redis-server")
        except Refused as error:
            print(f"without a broker: {error}; the api does the work itself")
            redis = False
        wanted = stack.Wanted(
            minio=minio,
            mlflow=mlflow,
            alertmanager=Grouping() if alertmanager else None,
            redis=redis,
            port=port,
        )
        stack.up(settings, wanted, lambda line: print(line, flush=True))
