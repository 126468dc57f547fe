"""`events`, `runs`, `lineage`, `verify`: what a person sees and what a script gets."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from command import Shell
from world import PACKAGE, RULES, World

from service.lifecycle import State
from service.localrun import LOG
from service.records import Query

Drop = Callable[..., str]
NASTY = "incoming/\x9b2J\u202e\u2066[bold red]x[/]é.csv"  # C1 and bidi controls, and what rich would take for a style


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> Shell:
    world.clock.at = datetime.now(UTC) - timedelta(hours=1)
    (world.home / "packages").mkdir()
    (world.home / "packages" / "scoring@v1.yaml").write_text(PACKAGE)
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    monkeypatch.setenv("KFP_TRIGGERS_STORE__BUSY_TIMEOUT", "0.1")
    return Shell()


@pytest.fixture
def run(shell: Shell, world: World, drop: Drop) -> str:
    """A run that the backend has; its key."""
    drop()
    world.answer()
    return world.store.runs.list(Query())[0].run_key


def times(found: Any) -> Iterator[str]:
    for name, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, dict | list):
            yield from times(value)
        elif isinstance(value, str) and re.search("_at$|^at$|^time$|^as_of$", str(name)):
            yield value


def test_a_listing_is_a_table_for_a_person_and_a_document_for_a_machine(shell: Shell, run: str) -> None:
    events, runs = shell.run("events", "list").out, shell.run("runs", "list").out
    for word in ("event", "received", "uploads", "object.created", "s3://user-ids/incoming/a.csv", "decided"):
        assert word in events
    for word in ("run", "created", run, "score", "scoring@v1", "submitted"):
        assert word in runs
    (event,) = shell.json("events", "list")["items"]
    (found,) = shell.json("runs", "list")["items"]
    assert (event["state"], found["run_key"], found["event_id"]) == ("decided", run, event["id"])


def test_every_document_has_its_times_in_utc(shell: Shell, run: str, world: World) -> None:
    event_id = shell.json("events", "list")["items"][0]["id"]
    for args in (["events", "list"], ["runs", "list"], ["events", "show", event_id], ["runs", "show", run]):
        found = list(times(shell.json(*args)))
        assert found
        assert [one for one in found if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", one)] == []


def test_the_documents_are_those_of_the_read_api(shell: Shell, run: str, world: World) -> None:
    from served import READ_TOKEN, Spoken

    bearer = {"authorization": f"Bearer {READ_TOKEN}"}
    event_id = shell.json("events", "list")["items"][0]["id"]
    for args, path in ((["events", "show", event_id], f"events/{event_id}"), (["runs", "show", run], f"runs/{run}")):
        assert shell.json(*args) == Spoken(world.app).get(f"/api/v1/{path}", headers=bearer).json()


@pytest.mark.parametrize(
    ("args", "count"),
    [
        ([], 3),
        (["--limit", "2"], 2),
        (["--since", "2h"], 3),
        (["--since", "90m"], 3),
        (["--since", "10s"], 0),
        (["--since", "2020-01-01"], 3),
        (["--since", "2020-01-01T00:00:00Z"], 3),
        (["--since", "2099-01-01T00:00:00+02:00"], 0),
        (["--source", "uploads"], 3),
        (["--source", "nobody"], 0),
        (["--state", "accepted"], 3),
        (["--state", "decided"], 0),
    ],
    ids=str,
)
def test_events_are_filtered(shell: Shell, drop: Drop, args: list[str], count: int) -> None:
    for number in range(3):
        drop(f"incoming/{number}.csv", eTag=str(number), request=str(number))
    assert len(shell.json("events", "list", *args)["items"]) == count


@pytest.mark.parametrize("args", [["--rule", "score"], ["--state", "submitted"], ["--since", "7d"]], ids=" ".join)
def test_runs_are_filtered(shell: Shell, run: str, args: list[str]) -> None:
    assert len(shell.json("runs", "list", *args)["items"]) == 1
    assert shell.json("runs", "list", *args, "--rule", "other") == {"items": []}


@pytest.mark.parametrize("since", ["", "yesterday", "5", "m", "-5m", "²d", "99999999999999d", "2026-13-01"])
def test_what_is_no_time_says_how_to_write_one(shell: Shell, since: str) -> None:
    assert "write 2026-11-21T07:00:00Z, or 30m, 6h, 7d" in shell.run("events", "list", f"--since={since}", status=2).err


def test_a_state_there_is_not_is_no_answer(shell: Shell) -> None:
    assert "there is accepted, quarantined" in shell.run("events", "list", "--state", "done", status=2).err
    assert "there is waiting, ready" in shell.run("runs", "list", "--state", "done", status=2).err


@pytest.mark.parametrize(
    "args", [["events", "show"], ["runs", "show"], ["runs", "logs"], ["runs", "cancel"]], ids=" ".join
)
@pytest.mark.parametrize("key", ["nothing", "\x1b[2J", "' or 1=1 --", ""])
def test_what_is_not_there_is_1_and_says_where_to_look(shell: Shell, args: list[str], key: str) -> None:
    said = shell.run(*args, key, status=1)
    assert f"see `kfp-triggers {args[0]} list`" in said.err
    assert "\x1b" not in said.err
    assert said.out == ""


def test_lineage_of_what_nobody_knows_is_1(shell: Shell) -> None:
    assert shell.run("lineage", "show", "s3://a/b", status=1).err == "nothing is recorded of s3://a/b\n"
    assert shell.json("lineage", "show", "s3://a/b", status=1)["known"] is False


def test_an_event_shows_what_each_rule_decided_and_why(shell: Shell, drop: Drop, world: World) -> None:
    world.registry.away = True
    event_id = drop()
    world.answer()
    shown = shell.run("events", "show", event_id).out
    assert "lookup_unavailable" in shown
    assert "the registry does not answer" in shown


def test_an_event_that_nobody_wanted_shows_why_each_rule_did_not(shell: Shell, drop: Drop, world: World) -> None:
    event_id = drop("elsewhere/a.csv")
    world.answer()
    shown = shell.run("events", "show", event_id).out
    assert "no_rule: no rule is triggered by it" in shown
    assert "key does not match 'incoming/**'" in shown
    world.rules(RULES.replace("incoming/**", "**"))
    assert "it matches now" in shell.run("events", "show", event_id).out


def test_an_event_that_waits_to_be_decided_says_who_does_it(shell: Shell, drop: Drop) -> None:
    assert "kfp-triggers up" in shell.run("events", "show", drop()).out


def test_an_event_that_was_not_understood_says_what_was_wrong(shell: Shell, drop: Drop) -> None:
    shown = shell.run("events", "show", drop(size=-1)).out
    assert "quarantined" in shown
    assert "size is not a whole number" in shown


def test_a_run_shows_its_history(shell: Shell, run: str, world: World) -> None:
    world.backend.end(State.FAILED, "read_data: no such file")
    world.later(1)
    shown = shell.run("runs", "show", run).out
    assert "error" in shown
    assert "read_data: no such file" in shown
    assert re.search("submitted +failed +observed_state", shown)


def test_foreign_text_is_shown_as_text(shell: Shell, drop: Drop, world: World) -> None:
    event_id = drop(NASTY)
    world.answer()
    world.backend.end(State.FAILED, "\x1b[2J\x07\r gone \u202e")
    world.later(1)
    run_key = world.store.runs.list(Query())[0].run_key
    log = world.home / "data" / "runs" / "id-0" / LOG
    log.parent.mkdir(parents=True)
    log.write_text("a line\x1b[2J\x9b\r\n\tanother\u202e")
    for args in (
        ["events", "list"], ["events", "show", event_id], ["runs", "list"], ["runs", "show", run_key],
        ["runs", "logs", run_key], ["lineage", "show", f"run:{run_key}"],
    ):  # fmt: skip
        for flags in ([], ["--json"]) if args[1] != "logs" else ([],):
            shown = shell.run(*args, *flags).out
            assert set(shown) & set("\x1b\x07\x9b\r\u202e\u2066") == set(), args
    assert "[bold red]x[/]é.csv" in shell.run("events", "show", event_id).out
    assert shell.json("events", "show", event_id)["data"]["key"] == NASTY
    assert shell.run("runs", "logs", run_key).out.splitlines() == ["a line\ufffd[2J\ufffd\ufffd", "\tanother\ufffd"]


def test_a_log_is_printed_as_it_is(shell: Shell, run: str, world: World) -> None:
    log = world.home / "data" / "runs" / "id-0" / LOG
    log.parent.mkdir(parents=True)
    log.write_text("one\n\ttwo é\n")
    assert shell.run("runs", "logs", run).out == "one\n\ttwo é\n"


def test_a_run_that_no_backend_has_yet_has_no_log(shell: Shell, drop: Drop, world: World) -> None:
    from service.errors import Temporary

    world.backend.before_create = Temporary("refused", delay=100, nothing_happened=True)
    drop()
    world.answer()
    run_key = world.store.runs.list(Query())[0].run_key
    assert "no backend has it yet" in shell.run("runs", "logs", run_key, status=1).err


def test_a_run_is_cancelled_by_the_service_and_only_once_it_is_open(shell: Shell, run: str, world: World) -> None:
    assert f"run {run} will be cancelled" in shell.run("runs", "cancel", run).out
    assert shell.json("runs", "cancel", run)["cancel_asked_at"].endswith("Z")
    world.later(1)
    assert world.store.runs.list(Query())[0].state is State.CANCELLED
    assert "has ended already: cancelled" in shell.run("runs", "cancel", run, status=1).err


def test_a_store_that_another_writes_to_is_3(shell: Shell, run: str, world: World) -> None:
    with world.store.database.write():
        assert "the store does not take it now" in shell.run("runs", "cancel", run, status=3).err
        shell.run("runs", "list")  # a look waits for nobody


def test_lineage_is_a_tree_in_both_directions(shell: Shell, run: str) -> None:
    shown = shell.run("lineage", "show", f"run:{run}").out
    assert f"run:{run} came from\n" in shown
    assert "─ " in shown
    found = shell.json("lineage", "show", f"run:{run}")
    assert set(found) == {"uri", "known", "upstream", "downstream", "truncated"}
    assert shell.run("lineage", "show", "s3://user-ids/incoming/a.csv").out.startswith(
        "s3://user-ids/incoming/a.csv led to\n"
    )


def test_verify_is_0_when_the_account_balances(shell: Shell, run: str, world: World) -> None:
    world.backend.end()
    world.later(1)
    found = shell.json("verify")
    assert set(found) == {"events", "decisions", "runs", "lost", "stuck", "twice", "unrecorded"}
    assert found["runs"] == {"succeeded": 1}
    assert found["decisions"] == {"skipped": 0, "waiting": 0, "attached": 1}
    assert re.search("stuck +0", shell.run("verify").out)


def test_verify_is_1_and_names_what_is_stuck(shell: Shell, drop: Drop) -> None:
    event_id = drop()
    assert shell.json("verify", status=1)["stuck"] == [f"event:{event_id}"]
    assert f"event:{event_id}" in shell.run("verify", status=1).out
