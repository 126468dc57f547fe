"""`kfp-triggers api`, `worker`, `migrate`: the processes of a deployment."""

from service.commands.show import settings, told


def api() -> None:
    """Take deliveries over HTTP, answer questions, do what is due when nobody else does."""
    from service.web.server import serve
    from service.wiring import opened

    with told():
        found = settings(talks=True)
        with opened(found, ingest=True) as app:
            serve(app, found)


def worker() -> None:
    """Decide and submit what the doorbell rings for; needs a broker."""
    from service.errors import Refused
    from service.wiring import opened
    from service.worker.tasks import work

    with told():
        found = settings(talks=True)
        if found.broker.url is None:
            raise Refused(
                "a worker listens to a broker: set KFP_TRIGGERS_BROKER__URL=redis://…; "
                "without one the api does the work itself and no worker is needed"
            )
        with opened(found) as app:
            raise SystemExit(work(app, found))


def migrate() -> None:
    """Bring the store to this version's schema; safe to run again."""
    from contextlib import closing

    from service.store.database import Database
    from service.store.migrate import upgrade

    with told(), closing(Database(settings().store)) as database:
        before, after = upgrade(database)
    print(f"the store's schema is {after}" + ("" if before == after else f", it was {before or 'empty'}"))
