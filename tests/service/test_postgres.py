"""PostgreSQL as the store: what is refused of a server, and that the commands work on it."""

from pathlib import Path

import postgres
import pytest
from command import Shell
from psycopg.errors import FeatureNotSupported

from service.errors import Refused, Temporary
from service.settings import StoreSettings
from service.store import Store, migrate
from service.store import postgres as dialect
from service.store.database import Database


def refused(url: str, why: str) -> None:
    store = Store(StoreSettings(url=url))
    with pytest.raises(Refused, match=why):
        migrate.require_current(store.database)
    store.close()


def test_a_database_that_would_lose_a_commit_is_refused_by_name(
    postgres_server: postgres.Server, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"alter database {name} set synchronous_commit = off")
    refused(postgres_url, "this PostgreSQL cannot be the store: synchronous_commit=off, by which a commit can be lost")
    postgres_server.execute(f"alter database {name} set synchronous_commit = local")
    postgres_server.execute(f"alter database {name} set default_transaction_read_only = on")
    refused(postgres_url, "default_transaction_read_only=on: it takes no writes")


def test_a_server_without_fsync_and_a_standby_are_refused_by_name() -> None:
    with postgres.server(fsync="off", full_page_writes="off") as one:
        refused(one.url("postgres"), "fsync=off.*; full_page_writes=off")
        one.stop()
        (one.folder / "data" / "standby.signal").touch()
        one.start(fsync="on", full_page_writes="on")
        refused(one.url("postgres"), "it is a standby, which takes no writes: name the primary")


GOOD = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "read_only": "off", "standby": False}


def test_an_old_server_is_refused_and_the_oldest_that_will_do_is_not() -> None:
    dialect._check(GOOD | {"version": "13.0", "number": 130000, "encoding": "UTF8"})
    with pytest.raises(Refused, match=r"version 12\.22: 13 or newer is needed"):
        dialect._check(GOOD | {"version": "12.22", "number": 120022, "encoding": "UTF8"})


@pytest.mark.parametrize(
    ("made_with", "why"),
    [
        ("encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'", "encoding is SQL_ASCII: make one with ENCODING 'UTF8'"),
        ("locale_provider icu icu_locale 'et-EE'", "sorts letters in an order of its own"),  # Z before T
        ("locale_provider icu icu_locale 'cs-CZ'", "sorts letters in an order of its own"),  # CH behind H
    ],
)
def test_a_database_of_another_encoding_or_order_is_refused(
    postgres_server: postgres.Server, made_with: str, why: str
) -> None:
    try:
        with postgres_server.database("template0", made_with) as url:
            refused(url, why)
    except FeatureNotSupported as error:  # the wheel's
        pytest.skip(str(error))


def test_an_url_that_cannot_be_read_is_told_without_its_password() -> None:
    with pytest.raises(Refused, match="cannot be read: it must look like") as told:
        Store(StoreSettings(url="postgresql://u:canary@h:por/t@h/d"))
    assert "canary" not in str(told.value)


def test_a_driver_that_we_do_not_have_is_refused() -> None:
    with pytest.raises(Refused, match=r"no driver for postgresql\+asyncpg; write postgresql://"):
        Store(StoreSettings(url="postgresql+asyncpg://h/d"))


def test_a_wrong_password_is_unreachable_and_not_told(postgres_url: str) -> None:
    database = Database(StoreSettings(url=postgres_url.replace("kfp:", "kfp:canary")))
    with pytest.raises(Temporary, match="password authentication failed") as told, database.read():
        pass
    assert "canary" not in told.value.detail + str(told.value.__cause__)
    database.close()


def test_the_commands_work_on_it_and_doctor_says_what_makes_it_durable(
    postgres_server: postgres.Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell()
    (home / "sources.yaml").write_text("apiVersion: kfp-triggers/v1\nsources: {}\n")
    (home / "packages").mkdir()
    with postgres_server.database() as url:
        monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", url)
        assert "run `kfp-triggers migrate`" in shell.run("runs", "list", status=2).err
        assert "it was empty" in shell.run("migrate").out
        rows = {(row["where"], row["what"]): row for row in shell.json("doctor", status=0)["items"]}
        told = rows["store", "durability"]["detail"]
        assert told.startswith("PostgreSQL 1")
        assert told.endswith("fsync=on, full_page_writes=on, synchronous_commit=on")
        assert rows["store", "clock"]["good"]
        assert shell.json("runs", "list")["items"] == []
        monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", url.replace("kfp:", "kfp:canary"))
        for command in (["doctor"], ["runs", "list"], ["settings"]):
            said = shell.run(*command, status=0 if command == ["settings"] else 3)
            assert "canary" not in said.out + said.err
