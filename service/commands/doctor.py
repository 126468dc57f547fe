"""`kfp-triggers doctor`: is all there that the settings name, and may we use it? Looks only, and changes nothing."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.show import BAD, UNREACHABLE, AsJson, document, settings, table, told

if TYPE_CHECKING:
    from service.ports import Backend, Finding
    from service.settings import BrokerSettings, MlflowSettings, ObjectSettings, Settings, StoreSettings

Look = Callable[[], "Iterable[Finding]"]

_APART = 2.0  #: seconds that clocks may be apart: leases go by those of the machines
_REACHABLE = "reachable"  #: a finding of this name that is bad says: not bad, but not there


@dataclass(frozen=True)
class _Row:
    """A finding, and about what it is."""

    where: str
    what: str
    good: bool
    detail: str


def doctor(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that any one of them may take.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Look at every backend, the store, the broker, the object store, MLflow and the rule files.

    Exit 1 when something is bad, else 3 when something could not be reached.
    """
    with told():
        rows = _ask_all(_looks(settings()), timeout)
    if as_json:
        document({"ok": all(row.good for row in rows), "items": [vars(row) for row in rows]})
    else:
        table(("where", "what", "", "detail"), [(r.where, r.what, "good" if r.good else "BAD", r.detail) for r in rows])
    bad = [row for row in rows if not row.good]
    if bad:
        raise typer.Exit(UNREACHABLE if all(row.what == _REACHABLE for row in bad) else BAD)


def _looks(found: "Settings") -> dict[str, Look]:
    """What is asked, by the name that it is shown under."""
    from service.wiring import backends

    looks: dict[str, Look] = {name: backend.check for name, backend in _named_once(backends(found).items())}
    if "local" in looks and not found.local.packages.exists():
        del looks["local"]  # it is always there; without packages, and not the default, nobody means it
    return looks | {
        "store": partial(_store, found.store),
        "broker": partial(_broker, found.broker),
        "objects": partial(_objects, found.objects),
        "mlflow": partial(_mlflow, found.mlflow),
        "rules": partial(_rules, found),
        "scan": partial(_scan, found),
    }


def _named_once(backends: "Iterable[tuple[str, Backend]]") -> "list[tuple[str, Backend]]":
    """One that has two names is asked once."""
    names: dict[int, list[str]] = {}
    kept = list(backends)
    for name, backend in kept:
        names.setdefault(id(backend), []).append(name)
    return [(", ".join(names.pop(id(backend))), backend) for _, backend in kept if id(backend) in names]


def _ask_all(looks: dict[str, Look], timeout: float) -> list[_Row]:
    """All at once, each in a thread that nobody waits for after its time: what hangs holds nothing else up."""
    answers: queue.SimpleQueue[tuple[str, Sequence[Finding]]] = queue.SimpleQueue()
    for name, look in looks.items():
        threading.Thread(target=lambda name=name, look=look: answers.put((name, _ask(look))), daemon=True).start()
    found: dict[str, Sequence[Finding]] = {}
    deadline = time.monotonic() + timeout
    while len(found) < len(looks):
        try:
            name, findings = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[name] = findings
    late = [_unreachable(f"did not answer within {timeout:g} s")]
    return [_Row(name, one.what, one.good, one.detail) for name in looks for one in found.get(name, late)]


def _ask(look: Look) -> "Sequence[Finding]":
    from service.errors import Permanent, Refused, Temporary

    try:
        return list(look())
    except Temporary as error:
        return [_unreachable(error.detail)]
    except (Permanent, Refused) as error:
        return [_finding("usable", str(error), good=False)]
    except Exception as error:  # noqa: BLE001  # one that breaks says so in its row, and the others are still shown
        return [_unreachable(f"{type(error).__name__}: {error}")]


def _store(found: "StoreSettings") -> "Iterable[Finding]":
    """SQLite makes a file for whoever looks: so it is looked for first."""
    from datetime import UTC, datetime
    from pathlib import Path

    from service.records import Query
    from service.store.database import Database
    from service.store.migrate import versions
    from service.store.promotions import SLOW, SqlPromotions

    scheme, _, path = found.url.partition(":///")
    if scheme.startswith("sqlite") and not Path(path).exists():
        yield _finding("schema", f"there is no store at {path}: run `kfp-triggers migrate`", good=False)
        return
    database = Database(found)
    waiting = stuck = 0
    try:
        durability, ahead = database.durability(), database.ahead(datetime.now(UTC))
        there, wanted = versions(database)
        if there == wanted:
            waiting = len(SqlPromotions(database).list(Query(state="asked", limit=500)))
            slow = Query(state="moving", until=datetime.now(UTC) - SLOW, limit=500)
            stuck = len(SqlPromotions(database).list(slow))
    except Exception as error:
        if type(error).__module__ != "sqlalchemy.exc":
            raise
        yield _unreachable(f"it cannot be used: {getattr(error, 'orig', None) or error}")
        return
    finally:
        database.close()
    yield _finding("durability", durability)
    if ahead is not None:
        apart = f"the database's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        yield _finding("clock", apart, good=abs(ahead) < _APART)
    remedy = "" if there == wanted else f", this version wants {wanted}: run `kfp-triggers migrate`"
    yield _finding("schema", f"{there or 'empty'}{remedy}", good=there == wanted)
    if waiting:
        yield _finding("promotions", f"{waiting} wait for a person: see `kfp-triggers models list`")
    if stuck:
        yield _finding("moves", f"{stuck} of aliases do not end: see `kfp-triggers models list`", good=False)


def _broker(found: "BrokerSettings") -> "Iterable[Finding]":
    from redis import Redis
    from redis.exceptions import RedisError

    if found.url is None:
        yield _finding(_REACHABLE, "none: the process that accepts an event does its work")
        return
    client = Redis.from_url(found.url.get_secret_value(), socket_timeout=5, socket_connect_timeout=3)
    try:
        client.ping()
    except (RedisError, OSError) as error:
        yield _unreachable(f"{error}: events are still taken, and decided some seconds later")
        return
    finally:
        client.close()
    yield _finding(_REACHABLE, "yes")


def _objects(found: "ObjectSettings") -> "Iterable[Finding]":
    from service.errors import Permanent
    from service.objects import S3Objects

    if not found.endpoint:
        yield _finding(_REACHABLE, "none: reports go to a folder, and rules cannot look into objects")
        return
    try:
        S3Objects(found).reports(f"s3://{found.bucket}/reports/doctor")
    except Permanent:
        yield _finding("bucket", f"{found.endpoint} has no bucket {found.bucket}: make it, for reports", good=False)
        return
    yield _finding("bucket", f"{found.bucket} on {found.endpoint}")


def _mlflow(found: "MlflowSettings") -> "Iterable[Finding]":
    """A plain request first: MLflow's own client tries a closed port for minutes."""
    import httpx

    from service.tracking import MlflowRegistry

    if not found.tracking_uri:
        yield _finding(_REACHABLE, "none: rules cannot look up models")
        return
    if found.tracking_uri.startswith(("http://", "https://")):
        try:
            httpx.get(found.tracking_uri, timeout=10)
        except httpx.HTTPError as error:
            yield _unreachable(f"it does not answer: {error}")
            return
    MlflowRegistry(found).tagged("doctor")
    yield _finding(_REACHABLE, "yes")


def _rules(found: "Settings") -> "Iterable[Finding]":
    from service.wiring import rulebook
    from triggers.yamlfile import Problems

    book = rulebook(found)
    try:
        senders, rules, warnings = book.check(book.files())
    except Problems as error:
        yield from (_finding(problem.file, str(problem), good=False) for problem in error.problems)
        return
    yield from (_finding(one.file, f"warning: {one}") for one in (*warnings, *book.passed_over()))
    yield _finding("files", f"{len(rules.rules)} rules on {len(senders)} sources")


def _scan(found: "Settings") -> "Iterable[Finding]":
    """Whether each bucket that is looked through can be: a look at what it lists first."""
    from service.errors import ServiceError
    from service.flow.reconcile import is_on
    from service.objects import S3Objects
    from service.wiring import rulebook
    from triggers.sources.minio import Config

    objects = S3Objects(found.objects)
    for source in rulebook(found).now().sources.values():
        if not isinstance(source.config, Config):
            continue
        scan = source.config.scan
        if scan is None or not is_on(source.config, objects):
            yield _finding(source.name, "off: an object that no notification tells of is not found")
            continue
        for bucket in source.config.buckets:
            try:
                next(objects.listed(bucket, scan.prefix))
            except ServiceError as error:
                yield _finding(f"{source.name} {bucket}", f"cannot be looked through: {error.detail}", good=False)
            else:
                yield _finding(f"{source.name} {bucket}", f"every {scan.every.total_seconds():g} s")


def _finding(what: str, detail: str, *, good: bool = True) -> "Finding":
    from service.ports import Finding

    return Finding(what=what, good=good, detail=detail)


def _unreachable(detail: str) -> "Finding":
    return _finding(_REACHABLE, detail, good=False)
