"""Who tells the service of things during a soak, each as its kind does: again and again until it gets a 2xx.

Every thing that a sender was promised is noted with the moment (`promised`), by its word: that is what must have come
to exactly one run in the end. Objects go to a real MinIO and alerts to a real Alertmanager, which tell of them
themselves; `git push` goes to a real repository with the hook that we ship. Used by `soak`.
"""

import contextlib
import io
import itertools
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import urllib3
from kinds import BUCKET, HOOKS, KINDS, REPOSITORY, alert
from minio import Minio
from scene import git, run

from service.embedded import S3

AGAIN = 0.3  #: seconds until a sender that was not answered 2xx tries again
TWICE = 0.1  #: of all deliveries come twice, as if the first answer had been lost
FIRES = 120.0  #: seconds that an alert lasts: Alertmanager never tells of one that ended while we were away
TELLS = 2.0  #: seconds after which Alertmanager is told again of all that fires
HOOK = Path(__file__).parents[2] / "deploy" / "git" / "post-receive"

Wait = Callable[[int], bool]  #: until it is a number's turn; False when there are to be no more


@dataclass
class Senders:
    """All kinds, at a rate of so many things a second together."""

    apis: Sequence[str]  #: a balancer before several would choose another each time
    s3: S3
    alertmanager: str
    folder: Path  #: for repositories
    secret: bytes
    rate: float
    seed: int
    promised: dict[str, float] = field(default_factory=dict)  #: when, by word; in seconds since 1970
    kinds: dict[str, str] = field(default_factory=dict)  #: of the words
    tries: int = 0  #: that were not answered 2xx
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """One thread a kind."""
        own = {"minio": self._objects, "alertmanager": self._alerts, "git": self._pushes}
        self._threads = [
            threading.Thread(
                target=own.get(name, self._hooks), args=(name, self._turns(KINDS[name].share)), daemon=True
            )
            for name in KINDS
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """What was begun is told to the end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _turns(self, share: float) -> Wait:
        began, rate = time.monotonic(), self.rate * share
        return lambda number: not self._over.wait(max(0.0, began + number / rate - time.monotonic()))

    def _promise(self, kind: str, word: str) -> None:
        self.kinds[word], self.promised[word] = kind, time.time()

    def _again(self) -> None:
        self.tries += 1
        time.sleep(AGAIN)

    def _objects(self, kind: str, turn: Wait) -> None:
        """Until MinIO has it: from then on it is MinIO who must tell. Each try is another object."""
        dice, where = random.Random(f"{self.seed}/{kind}"), urlsplit(self.s3.endpoint).netloc
        # Its own pool tries again unseen, and makes two versions, which are two events.
        pool = urllib3.PoolManager(retries=False, timeout=10)
        store = Minio(where, self.s3.access_key, self.s3.secret_key, secure=False, region="us-east-1", http_client=pool)
        tries, number = itertools.count(), 0
        while turn(number):
            key, content = f"{number % 50:02}/{number}-{next(tries)}.csv", b"user_id\n1\n" * dice.randrange(1, 20)
            try:
                store.put_object(BUCKET, key, io.BytesIO(content), len(content))
            except Exception:  # noqa: BLE001  # urllib3's, minio's, a connection's: it was killed
                self._again()
            else:
                self._promise(kind, f"s3://{BUCKET}/{key}")
                number += 1

    def _hooks(self, kind: str, turn: Wait) -> None:
        dice = random.Random(f"{self.seed}/{kind}")
        with httpx.Client(timeout=10) as http:
            for number in itertools.takewhile(turn, itertools.count()):
                post, left = HOOKS[kind](number, self.seed, self.secret), 2 if dice.random() < TWICE else 1
                headers = {**post.headers, "Content-Type": "application/json"}
                while left:
                    address = f"{dice.choice(self.apis)}/hooks/{kind}"
                    with contextlib.suppress(httpx.HTTPError):
                        left -= http.post(address, content=post.body, headers=headers).is_success
                    if left:
                        self._again()
                self._promise(kind, post.word)

    def _pushes(self, kind: str, turn: Wait) -> None:
        """The hook knows one address, and keeps in its spool what it could not send there."""
        bare, work = self.folder / "model.git", self.folder / "work"
        (self.folder / "hook-secret").write_bytes(self.secret)
        git("init", "--bare", str(bare))
        git("init", str(work))
        shutil.copy(HOOK, bare / "hooks" / "post-receive")
        (bare / "hooks" / "post-receive").chmod(0o755)
        told = {
            "url": f"{self.apis[0]}/hooks/{kind}",
            "repository": REPOSITORY,
            "secretFile": self.folder / "hook-secret",
        }
        for name, value in told.items():
            git("config", f"kfp-triggers.{name}", str(value), cwd=bare)
        tree, spool = git("hash-object", "-w", "-t", "tree", "/dev/null", cwd=work).strip(), bare / "kfp-triggers-spool"
        for number in itertools.takewhile(turn, itertools.count()):
            sha = git("commit-tree", tree, "-m", f"change {number} of {self.seed}", cwd=work).strip()
            git("push", "--quiet", "--force", str(bare), f"{sha}:refs/heads/b{number % 3}", cwd=work)
            self._promise(kind, sha)
        while any(spool.glob("*.json")):  # what cron would do
            run(str(bare / "hooks" / "post-receive"), "--drain", str(bare))
            time.sleep(AGAIN)

    def _alerts(self, kind: str, turn: Wait) -> None:
        """As Prometheus does: what fires is told again and again, and in the end that it does no more."""
        began, told, number, more = dict[str, datetime](), dict[str, float](), 0, True
        with httpx.Client(timeout=10) as http:
            while more or began:
                until = time.monotonic() + TELLS
                while more and time.monotonic() < until and (more := turn(number)):
                    began[f"alert-{self.seed}-{number}"] = datetime.now(UTC)
                    number += 1
                over = {word for word, first in told.items() if time.monotonic() - first > FIRES}
                body = [
                    alert(word, since, datetime.now(UTC) if word in over else None) for word, since in began.items()
                ]
                if not self._took(http, body):
                    self._again()
                    continue
                for word in began.keys() - told.keys():
                    told[word] = time.monotonic()
                    self._promise(kind, word)
                for word in over:
                    del began[word], told[word]
                time.sleep(0 if more else TELLS)

    def _took(self, http: httpx.Client, alerts: list[dict[str, Any]]) -> bool:
        try:
            return http.post(f"{self.alertmanager}/api/v2/alerts", json=alerts).is_success
        except httpx.HTTPError:
            return False
