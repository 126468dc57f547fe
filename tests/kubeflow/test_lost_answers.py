"""What a KFP API server does to a submission in bad hours: one run is kept, and a second one never stays unseen."""

import subprocess
import sys
from pathlib import Path

import pytest
from kfpserver import Stub
from kfpworld import PACE, Place, account, decide, drop, made, runs, submitted, work

from service.flow.steps import step
from service.lifecycle import State
from service.ports import App
from triggers.reason import Reason

ROOT = Path(__file__).parents[2]


def sent(app: App, key: str = "a.csv") -> str:
    """Decided and tried once; the run key."""
    decide(app, drop(app, key))
    run_key = runs(app)[-1].run_key
    step(app, "runs.submit", run_key)
    return run_key


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("drop_answer", {}),
        ("cut_answer", {}),
        ("hang_after", {"seconds": 1.2}),
        ("hang_before", {"seconds": 1.2}),
        ("status", {"status": 503, "create": True}),
    ],
)
def test_an_answer_that_is_lost_costs_no_second_run(place: Place, mode: str, more: dict[str, object]) -> None:
    place.stub.fault(mode, method="POST", path="/runs$", **more)
    place.stub.script(running=30)
    with place.opened() as app:
        run_key = sent(app)
        seconds = work(app, lambda: submitted(app))
        print(f"{mode}: submitted after {seconds:.2f} s more, settle being {PACE['settle']} s")
        assert place.stub.counts()["executed_keys"] == {run_key: 1}
        assert account(app) == {}


@pytest.mark.parametrize("stale", [0.8, 7.0], ids=["shorter than settle", "longer than settle"])
def test_lists_that_are_out_of_date(place: Place, stale: float) -> None:
    place.stub.script(running=30)
    place.stub.fault("drop_answer", method="POST", path="/runs$")
    place.stub.fault("stale_list", method="GET", path="/runs$", seconds=stale, times=-1)
    with place.opened() as app:
        run_key = sent(app)
        seconds = work(app, lambda: submitted(app))
        (run,) = runs(app)
        if stale < PACE["settle"]:
            print(f"stale for {stale} s: adopted after {seconds:.2f} s")
            assert Reason.ADOPTED in {move.reason for move in app.ledger.runs.transitions(run_key)}
            assert place.stub.counts()["executed_keys"] == {run_key: 1}
            assert account(app) == {}
            return
        assert place.stub.counts()["executed_keys"] == {run_key: 2}, "the server promised less than settle asks of it"
        found = work(app, lambda: [one for one in app.ledger.runs.doubles() if one.cancelled_at])
        print(f"stale for {stale} s: a double, found and ended after {seconds + found:.2f} s")
        (double,) = app.ledger.runs.doubles()
        assert double.backend_id != run.backend_id
        assert account(app) == {"twice": [f"run:{run_key} also as {double.backend_id}"]}
        work(app, lambda: place.stub.http.get(f"/apis/v2beta1/runs/{double.backend_id}").json()["state"] == "FAILED")
        shown = run_show(place, run_key)
        assert f"found twice: default also has it as {double.backend_id}, which ended" in shown


def run_show(place: Place, run_key: str) -> str:
    argv = [sys.executable, "-m", "service.cli", "--home", str(place.home), "runs", "show", run_key]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_request_that_the_network_gives_twice_is_found_out(place: Place) -> None:
    place.stub.script(running=30)
    place.stub.fault("twice", method="POST", path="/runs$")
    with place.opened() as app:
        run_key = sent(app)
        work(app, lambda: [one for one in app.ledger.runs.doubles() if one.cancelled_at])
        (run,) = runs(app)
        assert run.run_key == run_key
        assert run.state in {State.SUBMITTED, State.RUNNING}


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("throttle", {"seconds": 1}),
        ("close", {}),
        ("status", {"status": 500}),
        ("status", {"status": 502, "body": "<html>bad gateway</html>"}),
        ("redirect", {}),
        ("login_page", {}),
        ("unauthorized", {"token": "new", "times": 1}),
    ],
)
def test_a_refusal_is_tried_again_until_it_is_taken(place: Place, mode: str, more: dict[str, object]) -> None:
    place.stub.fault(mode, method="POST", path="/runs$", **more)
    with place.opened() as app:
        run_key = sent(app)
        app.ledger.queue.hurry("default", app.clock.now())  # what a person has to mend is looked at once a minute
        work(app, lambda: submitted(app))
        assert place.stub.counts()["executed_keys"] == {run_key: 1}


def test_a_server_that_is_away_for_a_while_loses_nothing_and_holds_up_no_other(tmp_path: Path, stub: Stub) -> None:
    place = made(tmp_path, stub)
    place.push()
    with (place.home / "settings.toml").open("a") as file:
        file.write('[backends.dead]\nendpoint = "http://127.0.0.1:9"\ntimeout = 0.5\n')
    from service.settings import load

    place = Place(stub, place.home, load(place.home))
    with place.opened() as app:
        run_key = sent(app)
        stub.script(running=0.2, pending=0.1)
        assert work(app, lambda: all(run.state is State.SUCCEEDED for run in runs(app))) < 10
        stub.kill()
        decide(app, drop(app, "later.csv"))
        stub.restart()
        work(app, lambda: len(runs(app)) == 2 and submitted(app))
        assert stub.counts()["executed_keys"] == {run.run_key: 1 for run in runs(app)}
        assert run_key in stub.counts()["executed_keys"]


@pytest.mark.parametrize("fault", ["deleted", "retried", "terminated", "archived"])
def test_what_people_do_to_a_run_in_kfps_own_pages(place: Place, fault: str) -> None:
    place.stub.script(running=30, pending=0)
    with place.opened() as app:
        sent(app)
        (run,) = runs(app)
        address = f"/apis/v2beta1/runs/{run.backend_id}"
        work(app, lambda: runs(app)[0].state is State.RUNNING)
        if fault == "deleted":
            assert place.stub.http.delete(address).status_code == 200
            work(app, lambda: runs(app)[0].state is State.GONE)
        elif fault == "archived":
            assert place.stub.http.post(f"{address}:archive").status_code == 200
            place.stub.advance(40)
            work(app, lambda: runs(app)[0].state is State.SUCCEEDED)
        elif fault == "terminated":
            assert place.stub.http.post(f"{address}:terminate").status_code == 200
            work(app, lambda: runs(app)[0].state is State.CANCELLED)
            assert runs(app)[0].reason == Reason.OBSERVED_STATE
        else:
            place.stub.script(outcome="fail", running=0, task="score", message="no memory", existing=True)
            work(app, lambda: runs(app)[0].state is State.FAILED)
            assert runs(app)[0].error == "task score: no memory"
            assert place.stub.http.post(f"{address}:retry").status_code == 200
            work(app, lambda: runs(app)[0].state in {State.RUNNING, State.SUCCEEDED})
            assert Reason.REVIVED in {move.reason for move in app.ledger.runs.transitions(run.run_key)}
