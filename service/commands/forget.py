"""`kfp-triggers forget`: a name goes, what happened stays."""

from typing import Annotated

import typer

from service.commands.backup import Name
from service.commands.show import BAD, USAGE, AsJson, document, fail, opened, say


def forget(
    object_uri: Annotated[str | None, typer.Option("--object", help="URI of an object: s3://bucket/key.")] = None,
    subject: Annotated[str | None, typer.Option(help="Any other subject, as `events list` shows it.")] = None,
    by: Name = "",
    why: Annotated[str, typer.Option("--why", help="Kept with it; name nobody in it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Replace a name by a salted hash wherever the store has it, and empty the bodies that told of it."""
    from service.commands.fire import person
    from service.flow.forget import forget as forgotten

    name = object_uri or subject
    if not name or (object_uri and subject):
        fail("give --object URI or --subject NAME", USAGE)
    with opened() as world:
        found = forgotten(world, name, by or person(), why)
        before = world.ledger.dead.notes("subject", found.token)
    if as_json:
        at = [one.at for one in before]
        document({"token": found.token, "rows": dict(found.rows), "reports": list(found.reports), "forgotten_at": at})
    elif found.rows:
        say(f"it is {found.token} now in {', '.join(f'{count} {table}' for table, count in found.rows.items())}")
        for prefix in found.reports:
            say(f"not the store's to change: {prefix}, what else its run wrote, and the backend's own record of it")
    elif before:
        say(f"nothing names it: it was forgotten {before[0].at:%Y-%m-%d %H:%M:%S} by {before[0].by}")
    if not before:
        fail("nothing in the store names it", BAD)
