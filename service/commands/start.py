"""`kfp-triggers init` and `up`: from nothing to a running service on a person's own files."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from service.commands.show import fail, told

TEMPLATES = Path(__file__).parent.parent / "templates"


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")] = Path(),
) -> None:
    """Write commented sources, rules and settings to start from; never over what is there."""
    written, kept = [], []
    for template in sorted(path for path in TEMPLATES.rglob("*") if path.is_file()):
        target = folder / template.relative_to(TEMPLATES)
        if target.exists():
            kept.append(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        written.append(target)
    for name in ("uploads", "model-repo", "alerts"):
        secret = folder / "secrets" / name
        if not secret.exists():
            secret.parent.mkdir(mode=0o700, exist_ok=True)
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24) + "\n")
            written.append(secret)
    (folder / "packages").mkdir(exist_ok=True)
    for path in written:
        print(f"wrote {path}")
    for path in kept:
        print(f"kept  {path}")
    print("\nNext: put compiled pipelines into packages/ as NAME@VERSION.yaml, edit rules/, then")
    print("  kfp-triggers rules check && kfp-triggers up --minio")


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
