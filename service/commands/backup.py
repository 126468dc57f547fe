"""`kfp-triggers backup` and `restore`: a copy of the store while it is in use, and the way back."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.show import USAGE, AsJson, document, fail, settings, told

Name = Annotated[str, typer.Option("--by", help="Who does it; else the login name.")]


def backup(
    target: Annotated[Path, typer.Argument(help="File to make, or a folder for one named by the time.")],
    as_json: AsJson = False,
) -> None:
    """Copy the store, checked, while everything runs. Files of the home are yours to copy: see docs/operations.md."""
    from datetime import UTC, datetime

    from service.store import backup as copy

    with told():
        source = copy.file_of(settings().store)
        if not source.exists():
            fail(f"there is no store at {source}: name another folder by --home", USAGE)
        file = target / f"kfp-triggers-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db" if target.is_dir() else target
        size = copy.back_up(source, file)
        schema = copy.check(file)
    if as_json:
        document({"file": str(file), "bytes": size, "schema": schema})
    else:
        print(f"{file}: {size} bytes, schema {schema}, checked")


def restore(
    file: Annotated[Path | None, typer.Argument(help="What `backup` made.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Put the store that is there aside.")] = False,
    only_mark: Annotated[
        bool, typer.Option("--mark", help="The store was put back by other tools, as PostgreSQL's: only say so to it.")
    ] = False,
    by: Name = "",
    as_json: AsJson = False,
) -> None:
    """Put a copy in the store's place, with every process stopped. Runs of the time since are found, not made twice."""
    from service.commands.fire import person
    from service.records import Handling
    from service.store import backup as copy
    from service.store.database import Database
    from service.wiring import SystemClock

    if (file is None) is not only_mark:
        fail("give the file to put back, or --mark alone", USAGE)
    with told():
        found = settings().store
        why = file.name if file else "by other tools"
        done = Handling(what="store", key="", action="restored", by=by or person(), why=why, at=SystemClock().now())
        if file is None:
            copy.mark(Database(found), done)
            aside, schema = None, ""
        else:
            aside, schema = copy.restore(found, file, done, force=force)
    if as_json:
        document({"file": str(file or ""), "schema": schema, "aside": str(aside or "")})
        return
    if file is None:
        print("the store is marked: runs of the time since the backup are searched for before any is sent")
    else:
        print(f"the store is {file.name} now, its schema was {schema}")
    if aside:
        print(f"the one before it is {aside}: delete it when it is of no use any more")
