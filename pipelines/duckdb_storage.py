"""DuckDB and Feast's registry, pointed at our object storage by the environment. Called by feature_store.py."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from urllib.parse import urlsplit

import duckdb
import ibis


def point_feast_at_storage() -> None:
    """Feast's registry looks at a variable of its own, and boto3 insists on a region."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        os.environ.setdefault("FEAST_S3_ENDPOINT_URL", endpoint)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")


def connect_duckdb() -> None:
    """Gives ibis, and so Feast, a DuckDB that knows our storage.

    DuckDB takes neither AWS_ENDPOINT_URL nor Feast's endpoint. httpfs comes from its package, nothing is downloaded;
    it is installed into a folder of this process, for ibis insists on an installed one and a home may be read-only or
    shared. TimeZone decides what a timestamp without a zone in a source means, and must not be the machine's.
    """
    extension = (
        resources.files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    )
    folder = tempfile.mkdtemp(prefix="duckdb-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    connection = ibis.duckdb.connect(extension_directory=folder, temp_directory=folder)
    connection.raw_sql(f"INSTALL {_quoted(str(extension))}")
    connection.raw_sql("LOAD httpfs")
    connection.raw_sql("SET TimeZone = 'UTC'")
    connection.raw_sql(f"CREATE SECRET (TYPE s3, {', '.join(_secret())})")
    ibis.set_backend(connection)


@contextmanager
def frames_let_go() -> Iterator[None]:
    """Around a question that hands DuckDB a frame: ibis would keep it registered, and so in memory, for ever."""
    con = ibis.get_backend().con
    before = _frames(con)
    try:
        yield
    finally:
        for name in _frames(con) - before:
            con.unregister(name)


def _frames(con: duckdb.DuckDBPyConnection) -> set[str]:
    found = con.execute("SELECT view_name FROM duckdb_views() WHERE view_name LIKE 'ibis%memtable%'")
    return {name for (name,) in found.fetchall()}


def _secret() -> list[str]:
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    values = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", ""),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN", ""),
        "REGION": os.environ["AWS_DEFAULT_REGION"],
        "ENDPOINT": endpoint.netloc,
        "URL_STYLE": "path" if endpoint.netloc else "",
    }
    secret = [f"{name} {_quoted(value)}" for name, value in values.items() if value]
    return [*secret, "USE_SSL false"] if endpoint.scheme == "http" else secret


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
