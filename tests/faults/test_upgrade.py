"""F27: a newer version takes over under load; the older one is refused by name. The older program is the real one."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from faults.report import Account
from faults.stage import ROOT, Mother, Stage, free_port, listens, until

pytestmark = pytest.mark.faults
VERSIONS = "service/store/migrations/versions"


def git(*argv: str) -> bytes:
    done = subprocess.run(["git", *argv], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the program's history is not here: {done.stderr.decode()[-200:]}")
    return done.stdout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mother]:
    """Processes of the program as it was before its newest migration."""
    newest = max(path.name for path in (ROOT / VERSIONS).glob("0*.py"))
    added = git("log", "-1", "--diff-filter=A", "--format=%H", "--", f"{VERSIONS}/{newest}").decode().strip()
    folder = tmp_path_factory.mktemp("older")
    archive = git("archive", "--format=tar", f"{added}^" if added else "HEAD", "service", "triggers")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    assert not (folder / VERSIONS / newest).exists()
    one = Mother(folder)
    yield one
    one.close()


def emptied(stage: Stage) -> None:
    """A store without a schema."""
    if stage.settings.store.url.startswith("sqlite"):
        Path(stage.settings.store.url.removeprefix("sqlite:///")).unlink()
        return
    with psycopg.connect(stage.settings.store.url, autocommit=True) as one:
        one.execute("drop schema public cascade")
        one.execute("create schema public")


def test_F27_a_newer_version_takes_over_under_load_and_the_older_is_refused(  # noqa: N802
    stage: Stage, older: Mother, mother: Mother, account: Account
) -> None:
    emptied(stage)
    stage.mother = older
    status, said = stage.command("migrate")
    assert status == 0, said
    before = stage.api()
    stage.mother = mother
    ports, answers, keys, over = [stage.port], list[int](), list[str](), threading.Event()

    def send(number: int) -> None:
        while not over.is_set():
            key, tries, answer = f"{stage.home.name}/{number}-{time.monotonic_ns()}.csv", 0, 0
            keys.append(key)
            body = stage.body(key)
            while answer not in {200, 202}:
                answer = stage.post(body, port=ports[(number + tries) % len(ports)])
                answers.append(answer)
                tries += 1
            time.sleep(0.05)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for sender in senders:
        sender.start()
    try:
        time.sleep(1)
        status, said = stage.command("migrate")
        assert status == 0, said
        second = free_port()
        after = stage.start("api", KFP_TRIGGERS_API__PORT=str(second))
        until(lambda: listens(second), what="the newer one listens")
        ports.append(second)
        time.sleep(2)  # side by side
        assert before.ended(within=0) is None
        os.kill(before.pid, signal.SIGTERM)
        assert before.ended(within=20) in {0, -signal.SIGTERM}
        ports.remove(stage.port)
        time.sleep(1)
    finally:
        over.set()
        for sender in senders:
            sender.join()
    assert set(answers) <= {0, 200, 202, 503}
    assert after.ended(within=0) is None
    account.recovered(stage.settled(len(keys), within=120))
    stage.mother = older
    refused = stage.start("api")
    assert refused.ended() in {2, 3}
    assert "a newer version of kfp-triggers" in refused.log.read_text()
    stage.mother = mother
