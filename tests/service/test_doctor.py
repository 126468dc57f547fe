"""`kfp-triggers doctor`: one table of what is there and what is not, and nobody waits for what hangs."""

import socket
import time
from pathlib import Path

import pytest
from command import Shell
from kfpserver import kfp_stub


@pytest.fixture
def shell(home: Path) -> Shell:
    (home / "packages").mkdir()
    shell = Shell()
    shell.run("migrate")
    return shell


def rows(shell: Shell, status: int = 0, *args: str) -> dict[tuple[str, str], tuple[bool, str]]:
    found = shell.json("doctor", *args, status=status)
    assert found["ok"] == (status == 0)
    return {(item["where"], item["what"]): (item["good"], item["detail"]) for item in found["items"]}


def test_a_home_that_has_what_it_needs_is_0(shell: Shell, home: Path) -> None:
    found = rows(shell)
    assert [name for name, (good, _) in found.items() if not good] == []
    wheres = {where for where, _ in found}
    assert wheres == {
        "local, default",
        "store",
        "broker",
        "objects",
        "mlflow",
        "rules",
    }  # and no scan: there is no bucket
    assert "0 rules on 0 sources" in shell.run("doctor").out


def test_without_a_store_it_is_1_and_none_is_made(home: Path) -> None:
    good, detail = rows(Shell(), 1)["store", "schema"]
    assert not good
    assert "kfp-triggers migrate" in detail
    assert not (home / "data").exists()


def test_every_problem_of_the_rule_files_and_packages_is_a_row(shell: Shell, home: Path) -> None:
    (home / "sources.yaml").write_text("apiVersion: kfp-triggers/v1\nsources: {a: {type: kafka, auth: none}}\n")
    (home / "packages/p@v1.yaml").write_text("root: {}")
    found = rows(shell, 1)
    assert "must be one of" in found["rules", "sources.yaml"][1]
    assert "not a compiled KFP v2 pipeline" in found["local, default", "package p@v1"][1]


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("BACKENDS__AWAY__ENDPOINT", "http://127.0.0.1:1", "away"),
        ("BROKER__URL", "redis://:canary@127.0.0.1:1/0", "broker"),
        ("OBJECTS__ENDPOINT", "http://127.0.0.1:1", "objects"),
        ("MLFLOW__TRACKING_URI", "http://127.0.0.1:1", "mlflow"),
        ("STORE__URL", "postgresql+psycopg://u:canary@127.0.0.1:1/x", "store"),
    ],
)
def test_what_cannot_be_reached_is_3(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str
) -> None:
    monkeypatch.setenv(f"KFP_TRIGGERS_{name}", value)
    said = shell.run("doctor", "--json", status=3)
    [bad] = [item for item in said.document["items"] if not item["good"]]
    assert (bad["where"], bad["what"]) == (where, "reachable")
    assert "canary" not in said.out + said.err


def test_one_that_hangs_holds_up_no_other(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__HANGS__ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        found = rows(shell, 3, "--timeout", "4")
        assert time.monotonic() - began < 12
    assert [name for name, (good, _) in found.items() if not good] == [("hangs", "reachable")]
    assert found["hangs", "reachable"] == (False, "did not answer within 4 s")


def test_a_kfp_server_says_which_it_is(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kfp_stub(tmp_path) as stub:
        monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__HERE__ENDPOINT", stub.url)
        found = {(item["where"], item["what"]): item for item in shell.json("doctor")["items"]}
    assert found["here", "reachable"]["good"]
    assert found["here", "version"]["good"]
