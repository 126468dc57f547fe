"""Every failpoint is one call in the source and has its death here: real processes, killed right at the point.

After it nothing is lost, nothing is there twice, and the work goes on within its bound.
"""

import ast
import json
import shutil
import sqlite3
import subprocess
import sys
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from codehosts import REPOSITORY, TOKENS, Host, hosted
from faults.stage import PACE, ROOT, RULE, SOURCES, Stage, bound, until

from service import failpoints
from service.errors import Refused
from service.failpoints import POINTS, Reached, arm, failpoint
from service.lifecycle import TERMINAL

RULE_WITH_LOCK = RULE + "    limits: {lock: one}\n"
SHA = "7f3c1d0a9b8e5f6423c1d0a9b8e5f6423c1d0a9b"
RULE_WITH_ANSWER = """
  retrain:
    trigger: {source: code, event: git.push, branch: main}
    run: {pipeline: scoring@v1, params: {uri: "${event.sha}"}}
    answer: {status: true, comment: true}
"""


class Play:
    """What leads to a point. `begin` before the armed process is there, `act` with it; `again` after the restart."""

    keys = 1  #: runs that there are in the end
    resends = True  #: its sender sends again what it did not hear of

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        """What is there before."""

    def act(self, stage: Stage) -> None:
        self.body = stage.body()
        stage.post(self.body)

    def again(self, stage: Stage) -> None:
        if self.resends:
            stage.deliver(self.body)

    def check(self, stage: Stage) -> None:
        """What holds in the end beside the oracle."""


class Locked(Play):
    def begin(self, stage: Stage, stack: ExitStack) -> None:
        stage.rules(RULE_WITH_LOCK)


class Lost(Play):
    """The POST of the run ends badly."""

    def __init__(self, mode: str, **more: object) -> None:
        self.mode, self.more = mode, more

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        stage.stub.fault(self.mode, method="POST", path="/runs$", body=stage.home.name, **self.more)


class Refusal(Lost):
    def __init__(self) -> None:
        super().__init__("status", status=400, answer={"code": 3, "message": "Invalid input error: no such thing"})

    def check(self, stage: Stage) -> None:
        assert [str(run.state) for run in stage.runs()] == ["dead"]


class AskedAgain(Play):
    keys, resends = 2, False

    def act(self, stage: Stage) -> None:
        stage.deliver()
        until(lambda: any(run.recorded_at for run in stage.runs()))
        status, said = stage.command("runs", "retry", stage.runs()[0].run_key, "--new")
        assert status == 0, said


class Revived(Play):
    resends = False

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        stage.stub.script(stage.home.name, outcome="fail", retry="succeed")

    def act(self, stage: Stage) -> None:
        stage.deliver()
        (run,) = until(lambda: [run for run in stage.runs() if run.recorded_at])
        stage.stub.http.post(f"/apis/v2beta1/runs/{run.backend_id}:retry").raise_for_status()

    def check(self, stage: Stage) -> None:
        assert [str(run.state) for run in stage.runs()] == ["succeeded"]


class Cancelled(Play):
    resends = False

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        stage.stub.script(stage.home.name, running=30)

    def act(self, stage: Stage) -> None:
        stage.deliver()
        until(lambda: [run for run in stage.runs() if str(run.state) == "running"])
        cancel(stage, 0)

    def check(self, stage: Stage) -> None:
        assert {str(run.state) for run in stage.runs()} == {"cancelled"}


class CancelledHere(Cancelled):
    """It waits for a lock: no backend has it yet."""

    keys = 2

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        stage.rules(RULE_WITH_LOCK)
        super().begin(stage, stack)

    def act(self, stage: Stage) -> None:
        for _ in range(2):
            stage.deliver()
        until(lambda: {str(run.state) for run in stage.runs()} == {"running", "waiting"})
        cancel(stage, 1)

    def again(self, stage: Stage) -> None:
        cancel(stage, 0)


class Promoted(Play):
    """A person moves an alias by a command, which dies; the API's sweep goes on with it."""

    keys, resends = 0, False
    argv = ("models", "promote", "income", "2", "--expect", "1")

    def begin(self, stage: Stage, stack: ExitStack) -> None:
        shutil.copy(models(stage.home.parent.parent), stage.home / "mlflow.db")
        with (stage.home / "settings.toml").open("a") as file:
            file.write(f'[mlflow]\ntracking_uri = "sqlite:///{stage.home}/mlflow.db"\n')

    def check(self, stage: Stage) -> None:
        with stage.store() as store:
            until(lambda: [str(one.state) for one in store.promotions.done("income", "champion")] == ["done"])
        with closing(sqlite3.connect(stage.home / "mlflow.db")) as registry:
            assert registry.execute("select alias, version from registered_model_aliases").fetchall() == [
                ("champion", 2)
            ]
        stage.verified()


class Answered(Play):
    def begin(self, stage: Stage, stack: ExitStack) -> None:
        self.host: Host = stack.enter_context(hosted("github"))
        stage.write("host.token", TOKENS["github"][1].removeprefix("Bearer "))
        answers = f"{{api: '{self.host.address}', token: {{file: host.token}}, kind: github}}"
        told = f"  code:\n    type: git\n    auth: none\n    answers: {answers}\n"
        stage.write(
            "sources.yaml", f"{SOURCES}{told}    repositories: {{{REPOSITORY}: {{url: 'https://git/model'}}}}\n"
        )
        stage.rules(RULE_WITH_ANSWER)
        update = {"ref": "refs/heads/main", "old": "0" * 40, "new": SHA, "commit": SHA, "paths": ["a"]}
        told = {"version": 1, "delivery": "a" * 20, "repository": REPOSITORY, "sent_at": "2026-11-21T07:00:00Z"}
        self.body = json.dumps(told | {"updates": [update]}).encode()

    def act(self, stage: Stage) -> None:
        stage.post(self.body, "code")

    def again(self, stage: Stage) -> None:
        assert stage.post(self.body, "code") == 200

    def check(self, stage: Stage) -> None:
        """A status is told again and is the same; a comment is found by its marker and stays one."""
        with stage.store() as store:
            (run,) = stage.runs()
            until(lambda: (found := store.answers.of_run(run.run_key)) is not None and str(found.state) == "done")
        assert self.host.latest()["state"] == "success"
        assert len(self.host.comments) == 1


#: The play that leads to each point. A point without one fails `test_each_point_has_its_death`.
PLAYS: dict[str, Callable[[], Play]] = {
    **dict.fromkeys(("writer.before_commit", "writer.after_commit", "door.before_2xx", "duty.begun"), Play),
    **dict.fromkeys(("event.stored", "event.claimed", "event.decided"), Play),
    **dict.fromkeys(("run.intent_written", "run.before_post", "run.after_post", "run.id_stored"), Play),
    **dict.fromkeys(("run.watched", "run.ended", "run.reports_read", "run.recorded"), Play),
    "decision.asked_again": AskedAgain,
    "lock.granted": Locked,
    "run.adopted": lambda: Lost("drop_answer"),
    "run.absent": lambda: Lost("close"),
    "run.refused": Refusal,
    "run.revived": Revived,
    "run.cancel_told": Cancelled,
    "run.cancelled": CancelledHere,
    **dict.fromkeys(("promotion.begun", "promotion.moved", "promotion.announced", "promotion.ended"), Promoted),
    **dict.fromkeys(("answer.posted", "answer.ended"), Answered),
}
#: After these nobody knows whether the backend was asked: the settle time comes on top.
UNCLEAR = {"run.intent_written", "run.before_post", "run.after_post", "run.absent", "run.adopted"}


def cancel(stage: Stage, which: int) -> None:
    status, said = stage.command("runs", "cancel", stage.runs()[which].run_key)
    assert status == 0, said


REGISTRY = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
client.create_registered_model("income")
for number in (1, 2):
    client.create_model_version("income", f"s3://models/{number}")
client.set_registered_model_alias("income", "champion", "1")
"""


def models(folder: Path) -> Path:
    """An MLflow registry with a champion, made once: its tables take seconds."""
    path = folder / "mlflow.db"
    if not path.exists():
        subprocess.run([sys.executable, "-W", "ignore", "-c", REGISTRY, f"sqlite:///{path}"], check=True, timeout=120)
    return path


def calls() -> Iterator[str]:
    """The name in each call of `failpoint` in the service."""
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}: a failpoint's name is written out"
                yield str(name.value)


def test_each_point_is_called_once_and_each_call_is_a_point() -> None:
    assert Counter(calls()) == Counter(POINTS)


def test_each_point_has_its_death() -> None:
    """A new point: say in PLAYS what leads to it."""
    assert set(PLAYS) == POINTS


def test_off_a_point_costs_nothing() -> None:
    arm({})
    assert min(timeit.repeat(lambda: failpoint("event.stored"), number=10_000, repeat=20)) / 10_000 < 500e-9


@pytest.mark.parametrize("told", ["event.stared=kill", "event.stored", "event.stored=kill@0", "event.stored=sleep"])
def test_what_is_no_point_is_refused_with_the_list(told: str) -> None:
    with pytest.raises(Refused, match=r"door\.before_2xx, duty\.begun"):
        arm({failpoints.VARIABLE: told})


def test_a_process_with_a_misspelt_point_does_not_start(stage: Stage) -> None:
    api = stage.start("api", failpoint="event.stared=kill")
    assert api.ended() == 2
    assert "writer.after_commit" in api.log.read_text()


def test_it_acts_on_the_pass_that_is_meant_and_on_no_other() -> None:
    arm({failpoints.VARIABLE: "event.stored=raise@2"})
    try:
        failpoint("event.stored")
        failpoint("event.claimed")
        with pytest.raises(Reached):
            failpoint("event.stored")
        failpoint("event.stored")
        arm({failpoints.VARIABLE: "event.stored=sleep:0.2"})
        began = time.monotonic()
        failpoint("event.stored")
        assert time.monotonic() - began >= 0.2
    finally:
        arm({})


@pytest.mark.faults
@pytest.mark.quick
@pytest.mark.parametrize("point", sorted(POINTS))
def test_killed_at_a_point_nothing_is_lost_and_nothing_is_twice(stage: Stage, point: str) -> None:
    play = PLAYS[point]()
    with ExitStack() as stack:
        play.begin(stage, stack)
        if isinstance(play, Promoted):
            dying = stage.start(*play.argv, failpoint=f"{point}=kill")
        else:
            dying = stage.api(f"{point}=kill")
            play.act(stage)
        assert dying.ended() == -9, dying.log.read_text()[-2000:]
        stage.api()
        play.again(stage)
        seconds = stage.settled(play.keys)
        play.check(stage)
    assert {run.state for run in stage.runs()} <= TERMINAL
    assert seconds <= bound(PACE["settle"] if point in UNCLEAR else 0)
