"""`make demo`: the main job on real parts, told as four stories, with what happened printed at the end.

Brings the embedded stack up in a folder of its own, makes the people and their features, and then only does what a
user's senders do: push to a Git repository, drop a file into a bucket, post an alert to Alertmanager. What it prints it
asks the service. Exit status 1 when a story failed; nothing is left running. `--stay` keeps it up.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import data
import httpx
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from service.buckets import client
from service.embedded import S3, Grouping
from service.errors import Refused
from service.supervise import Supervisor
from service.up import Stack, Wanted, addresses, bring_up

HERE = Path(__file__).parent
REPOSITORY = "acme/income-model"
BUCKETS = ("user-ids", "feature-store", "labels", "predictions")
DROPPED = "incoming/eu/users 2026+11 — été.csv"
PATIENCE = 180.0  #: seconds for one story

SOURCES = """\
apiVersion: kfp-triggers/v1
sources:
  uploads: {{type: minio, token: {{file: secrets/uploads}}, buckets: [user-ids]}}
  model-repo:
    type: git
    secrets: [{{file: secrets/model-repo}}]
    repositories: {{{repository}: {{url: "{url}"}}}}
  drift: {{type: alertmanager, token: {{file: secrets/drift}}}}
"""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)


class Failed(Exception):
    """A story did not come out as it should."""


@dataclass
class Demo:
    """The stack, and what the stories need of it."""

    stack: Stack
    bare: Path
    clone: Path
    now: datetime
    shown: list[str] = field(default_factory=list)

    @property
    def s3(self) -> S3:
        """The object store, which a demo always has."""
        if self.stack.s3 is None:
            raise Failed("the demo needs an object store")
        return self.stack.s3

    def get(self, path: str, **params: Any) -> Any:
        """Ask the read API."""
        headers = {"Authorization": f"Bearer {self.stack.token}"}
        return httpx.get(f"{self.stack.api}/api/v1/{path}", params=params, headers=headers).raise_for_status().json()

    def runs(self, rule: str) -> list[Mapping[str, Any]]:
        """The rule's runs, newest first."""
        return list(self.get("runs", rule=rule)["items"])

    def finished(self, rule: str, count: int) -> Mapping[str, Any]:
        """Wait for the rule's count-th run and its record; its last state is the answer."""
        run = self.until(lambda: self._recorded(rule, count), f"run {count} of {rule}")
        if run["state"] != "succeeded":
            raise Failed(f"run {run['run_key']} of {rule} {run['state']}: {run['error']}")
        return run

    def _recorded(self, rule: str, count: int) -> Mapping[str, Any] | None:
        runs = self.runs(rule)
        return runs[0] if len(runs) == count and (runs[0]["recorded_at"] or runs[0]["state"] == "dead") else None

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Look until there is something."""
        deadline = time.monotonic() + PATIENCE
        with console.status(f"waiting for {what}") if console.is_terminal else _silence():
            while time.monotonic() < deadline:
                if found := look():
                    return found
                time.sleep(0.25)
        raise Failed(f"{what} did not come within {PATIENCE:g} s")


@contextmanager
def _silence() -> Any:
    yield


def prepare(home: Path) -> tuple[Path, Path]:
    """The home's files, and a bare repository with our hook and a clone to push from."""
    bare, clone = home / "git" / "income-model.git", home / "git" / "clone"
    (home / "rules").mkdir(parents=True)
    shutil.copy(HERE.parent / "rules" / "income.yaml", home / "rules")
    (home / "sources.yaml").write_text(SOURCES.format(repository=REPOSITORY, url=bare.as_uri()))
    (home / "secrets").mkdir(mode=0o700)
    for name in ("uploads", "model-repo", "drift"):
        (home / "secrets" / name).write_text(os.urandom(24).hex())
    run(sys.executable, "-m", "pipelines.compile", str(home / "packages"))
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git("clone", "--quiet", str(bare), str(clone))
    shutil.copy(HERE.parent / "git" / "post-receive", bare / "hooks" / "post-receive")
    return bare, clone


def run(*argv: str, cwd: Path | None = None) -> str:
    """A command that must succeed; its output."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(argv[:4])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def git(*argv: str, cwd: Path | None = None) -> str:
    """Git with an author."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main")
    return run("git", *who, *argv, cwd=cwd)


def configure_hook(demo: Demo) -> None:
    """What deploy/git/README.md tells a repository's owner to do."""
    for name, value in (
        ("url", demo.stack.hook("model-repo")),
        ("repository", REPOSITORY),
        ("secretFile", str(demo.stack.home / "secrets" / "model-repo")),
    ):
        git("config", f"kfp-triggers.{name}", value, cwd=demo.bare)


def people(demo: Demo) -> None:
    """Features, labels and Feast's registry in their buckets; Feast is imported in a process of its own."""
    env = {**os.environ, **demo.s3.environment()}
    argv = [sys.executable, str(HERE / "data.py"), "--bucket", "feature-store", "--now", demo.now.isoformat()]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the people could not be made:\n{done.stderr}")
    store = client(demo.s3)
    labels = store.get_object("feature-store", "labels.parquet").read()
    store.put_object("labels", "income.parquet", io.BytesIO(labels), len(labels))


def push(demo: Demo, version: str, message: str) -> str:
    """A commit with this version of the model's code; its sha."""
    for path in (HERE / "model_repo" / version).iterdir():
        shutil.copy(path, demo.clone)
    git("add", "--all", cwd=demo.clone)
    git("commit", "--quiet", "--message", message, cwd=demo.clone)
    said = git("push", "--quiet", "origin", "HEAD:main", cwd=demo.clone)
    demo.shown += [line for line in said.splitlines() if line.strip()]
    return git("rev-parse", "HEAD", cwd=demo.clone).strip()


def first_push(demo: Demo) -> str:
    """Story 0."""
    sha = push(demo, "v1", "Logistic regression")
    trained = demo.finished("retrain-on-push", 1)
    version = champion(demo)
    if version != 1:
        raise Failed(f"the champion is version {version}, not 1")
    return f"commit {sha[:10]} → run {trained['run_key']} → models:/income-classifier/1, champion"


def champion(demo: Demo) -> int:
    """As MLflow says."""
    url = f"{demo.stack.mlflow}/api/2.0/mlflow/registered-models/alias"
    found = httpx.get(url, params={"name": "income-classifier", "alias": "champion"}).raise_for_status().json()
    return int(found["model_version"]["version"])


def dropped_file(demo: Demo) -> str:
    """Story 1."""
    csv = data.requested_csv(data.Population(now=demo.now))
    store = client(demo.s3)
    store.put_object("user-ids", DROPPED, io.BytesIO(csv), len(csv), content_type="text/csv")
    scored = demo.finished("score-new-users", 1)
    key = scored["params"]["output_file_name"]
    table = pq.read_table(io.BytesIO(store.get_object("predictions", key).read()))
    wanted = [(number, line) for number, line in enumerate(csv.decode("utf-8-sig").splitlines(), 1) if line][1:]
    lines = table.column("line").to_pylist()
    if lines != [number for number, _ in wanted]:
        raise Failed("the predictions are not the requested rows in the file's order")
    statuses = table.column("status").value_counts().to_pylist()
    counts = ", ".join(f"{item['counts']} {item['values']}" for item in statuses)
    return f"{len(lines)} requested rows → {len(lines)} predictions ({counts}) in s3://predictions/{key}"


def second_push(demo: Demo) -> str:
    """Story 2."""
    sha = push(demo, "v2", "Gradient boosting")
    trained = demo.finished("retrain-on-push", 2)
    return (
        f"commit {sha[:10]} → run {trained['run_key']} → {_version_of(demo, trained)}; champion stays {champion(demo)}"
    )


def _version_of(demo: Demo, trained: Mapping[str, Any]) -> str:
    lineage = demo.get("lineage", uri=f"run:{trained['run_key']}")["downstream"]
    made = [edge["target"] for edge in lineage if edge["target"].startswith("models:/")]
    if not made:
        raise Failed(f"run {trained['run_key']} registered no model version")
    return str(made[0])


def alert(demo: Demo) -> str:
    """Story 3."""
    labels = {
        "alertname": "FeatureDrift",
        "model": "income-classifier",
        "feature": "hours_per_week",
        "severity": "page",
    }
    began = datetime.now(UTC)
    _post_alert(demo, {"labels": labels, "startsAt": began.isoformat(), "annotations": {"summary": "PSI 0.31"}})
    demo.until(lambda: demo.runs("retrain-on-drift"), "the alert's run")
    repeats = demo.until(lambda: _deliveries_after(demo, 2), "Alertmanager's repeat")
    ended = datetime.now(UTC).isoformat()
    _post_alert(demo, {"labels": labels, "startsAt": began.isoformat(), "endsAt": ended})
    demo.until(lambda: demo.get("events", source="drift", state="unmatched")["items"], "the resolved notification")
    trained = demo.finished("retrain-on-drift", 1)
    return (
        f"firing → run {trained['run_key']} → {_version_of(demo, trained)}; "
        f"{repeats} repeats and the resolved notification started nothing"
    )


def _post_alert(demo: Demo, body: Mapping[str, Any]) -> None:
    httpx.post(f"{demo.stack.alertmanager}/api/v2/alerts", json=[body]).raise_for_status()


def _deliveries_after(demo: Demo, count: int) -> int:
    """How often Alertmanager posted more than once: it says so itself."""
    text = httpx.get(f"{demo.stack.alertmanager}/metrics").text
    sent = [line for line in text.splitlines() if line.startswith("alertmanager_notifications_total{")]
    total = sum(float(line.rsplit(" ", 1)[1]) for line in sent if 'integration="webhook"' in line)
    return int(total) - 1 if total >= count else 0


def account(demo: Demo) -> bool:
    """The table, the lineage of the predictions, and `verify`; whether the last is clean."""
    events = {item["id"]: item for item in demo.get("events", limit=200)["items"]}
    table = Table("event", "rule", "decision", "run", "outputs", "took", box=None, pad_edge=False)
    for decision in reversed(demo.get("decisions", limit=200)["items"]):
        event = events[decision["event_id"]]
        found = [item for item in demo.runs(decision["rule"]) if item["run_key"] == decision["run_key"]]
        table.add_row(
            f"{event['type']} {event['subject']}",
            decision["rule"],
            f"{decision['outcome']} ({decision['reason']})",
            f"{decision['run_key']} {found[0]['state']}" if found else "",
            "\n".join(_outputs(demo, decision["run_key"])),
            _took(event, found[0]) if found else "",
        )
    console.rule("event → rule → decision → run → outputs", align="left")
    console.print(table)
    scored = demo.runs("score-new-users")[0]
    console.rule("where the predictions came from", align="left")
    uri = f"s3://predictions/{scored['params']['output_file_name']}"
    print(kfp_triggers(demo, "lineage", "show", uri)[0], flush=True)
    console.rule("kfp-triggers verify", align="left")
    said, code = kfp_triggers(demo, "verify")
    print(said, flush=True)
    return code == 0


def _outputs(demo: Demo, run_key: str) -> Sequence[str]:
    if not run_key:
        return []
    edges = demo.get("lineage", uri=f"run:{run_key}")["downstream"]
    return sorted({edge["target"] for edge in edges if edge["relation"] == "wrote" and edge["run_key"] == run_key})


def _took(event: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """From the event's arrival to the submission, and from there to the end."""
    arrived, submitted, ended = (
        datetime.fromisoformat(moment) if moment else None
        for moment in (event["received_at"], run["started_at"], run["ended_at"])
    )
    if arrived is None or submitted is None or ended is None:
        return ""
    return f"{(submitted - arrived).total_seconds():.1f} s + {(ended - submitted).total_seconds():.1f} s"


def kfp_triggers(demo: Demo, *argv: str) -> tuple[str, int]:
    """The command line on the demo's home."""
    env = {**os.environ, "KFP_TRIGGERS_HOME": str(demo.stack.home), "KFP_TRIGGERS_LOG__LEVEL": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *argv], env=env, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr, done.returncode


STORIES: Sequence[tuple[str, Callable[[Demo], str]]] = (
    ("The model repository's first push trains the first champion", first_push),
    ("A file of user ids is dropped into the bucket", dropped_file),
    ("A second commit is pushed", second_push),
    ("A drift alert fires, repeats and resolves", alert),
)


def tell(number: int, title: str, story: Callable[[Demo], str], demo: Demo) -> bool:
    """Play one story and say how it came out."""
    console.print(f"[bold]{number}. {title}[/bold]")
    began = time.monotonic()
    try:
        outcome = story(demo)
    except (Failed, httpx.HTTPError) as error:
        console.print(f"   [red]failed[/red] after {time.monotonic() - began:.0f} s: {error}", markup=True)
        return False
    console.print(f"   {outcome}  ({time.monotonic() - began:.0f} s)", markup=False)
    return True


def play(home: Path, *, stay: bool) -> bool:
    """Everything, in order; whether every story came out and the account is clean."""
    began = time.monotonic()
    bare, clone = prepare(home)
    wanted = Wanted(
        minio=True, mlflow=True, alertmanager=Grouping("0s", "1s", "2s"), buckets=BUCKETS, port=0, env=_pace()
    )
    with Supervisor(home / "data", lambda line: console.print(f"   {line}", markup=False)) as supervisor:
        stack = bring_up(supervisor, wanted)
        now = datetime.now(UTC) - timedelta(seconds=1)
        demo = Demo(stack=stack, bare=bare, clone=clone, now=now)
        configure_hook(demo)
        people(demo)
        console.print(f"   ready after {time.monotonic() - began:.0f} s\n")
        # Each needs the one before it, so the first that fails is the last that is played.
        good = all(tell(number, title, story, demo) for number, (title, story) in enumerate(STORIES))
        clean = account(demo) if good else False
        console.print(
            f"\n{'every story came out' if good and clean else 'something failed'} "
            f"({time.monotonic() - began:.0f} s in all)"
        )
        if stay or not good:
            for line in addresses(stack):
                console.print(line, markup=False)
        if stay:
            console.print("Ctrl-C ends it")
            supervisor.wait()
    return good and clean


def _pace() -> dict[str, str]:
    """A demo's patience: looks at its runs twice a second."""
    return {"KFP_TRIGGERS_PACE__WATCH": "0.5", "KFP_TRIGGERS_LOG__FORMAT": "json"}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="keep it up and print the addresses")
    parser.add_argument("--home", type=Path, help="a new folder to play in; else a temporary one")
    chosen = parser.parse_args()
    home = chosen.home or Path(tempfile.mkdtemp(prefix="kfp-triggers-demo-"))
    good = False
    try:
        good = play(home.absolute(), stay=chosen.stay)
    except (Refused, Failed) as error:
        console.print(f"[red]{error}[/red]")
    except KeyboardInterrupt:
        console.print("interrupted")
    finally:
        if good and chosen.home is None:
            shutil.rmtree(home, ignore_errors=True)
        else:
            console.print(f"its files are in {home}", markup=False)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
