"""Who tells the service of things during a soak, each as its kind does: again and again until it gets a 2xx.

Every thing that a sender was promised is noted (`promised`), by the subject of its event: that is what must have come
to exactly one run in the end. Objects go to a real MinIO, which tells of them itself. Used by `soak`.
"""

import contextlib
import hashlib
import hmac
import io
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from service.buckets import client
from service.embedded import S3

BUCKET, REPOSITORY = "inbox", "acme/model"
AGAIN = 0.3  #: seconds until a sender that was not answered 2xx tries again
TWICE = 0.1  #: of all deliveries come twice, as if the first answer had been lost


@dataclass
class Senders:
    """All kinds, at a rate of so many things a second together."""

    hooks: Callable[[str], str]  #: a source's address; a balancer before several APIs would choose another each time
    s3: S3
    secret: bytes
    rate: float
    seed: int
    promised: set[str] = field(default_factory=set)  #: subjects
    tries: int = 0  #: that were not answered 2xx
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """One thread a kind; objects are half of everything."""
        for place, (share, send) in enumerate([(0.5, self._object), (0.25, self._push), (0.25, self._alert)]):
            arguments = (send, self.rate * share, random.Random(f"{self.seed}/{place}"))
            self._threads.append(threading.Thread(target=self._keep_on, args=arguments, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """What was begun is told to the end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _keep_on(
        self, send: Callable[[int, random.Random, httpx.Client], str], rate: float, dice: random.Random
    ) -> None:
        began = time.monotonic()
        with httpx.Client(timeout=10) as http:
            for number in itertools.count():
                if self._over.wait(max(0.0, began + number / rate - time.monotonic())):
                    return
                self.promised.add(send(number, dice, http))

    def _object(self, number: int, dice: random.Random, http: httpx.Client) -> str:
        key, content = f"{number % 50:02}/{number}.csv", b"user_id\n1\n" * dice.randrange(1, 20)
        while True:  # until MinIO has it: from then on it is MinIO who must tell
            try:
                client(self.s3).put_object(BUCKET, key, io.BytesIO(content), len(content))
                return f"s3://{BUCKET}/{key}"
            except Exception:  # noqa: BLE001  # urllib3's, minio's, a connection's: it was killed
                self.tries += 1
                time.sleep(AGAIN)

    def _push(self, number: int, dice: random.Random, http: httpx.Client) -> str:
        shas = [hashlib.sha1(f"{self.seed}/{n}".encode()).hexdigest() for n in (number - 1, number)]  # noqa: S324
        branch = f"b{number}"
        body = {
            "ref": f"refs/heads/{branch}", "before": "0" * 40, "after": shas[1], "forced": False,
            "repository": {"full_name": REPOSITORY}, "commits": [],
            "head_commit": {"id": shas[1], "message": f"change {number}", "author": {"name": "ada"}},
        }  # fmt: skip
        told = {"X-GitHub-Event": "push", "X-GitHub-Delivery": f"{self.seed}-{number}"}
        self._deliver("model-repo", body, told, dice, http)
        return f"{REPOSITORY}@refs/heads/{branch}"

    def _alert(self, number: int, dice: random.Random, http: httpx.Client) -> str:
        fingerprint = hashlib.sha256(f"{self.seed}/{number}".encode()).hexdigest()[:16]
        alert = {
            "status": "firing", "labels": {"alertname": "Drift", "number": str(number)}, "annotations": {},
            "startsAt": datetime.now(UTC).isoformat(), "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "",
            "fingerprint": fingerprint,
        }  # fmt: skip
        body = {
            "version": "4", "groupKey": f"{{}}:{{number={number}}}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "soak", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
            "alerts": [alert],
        }  # fmt: skip
        self._deliver("drift", body, {"Authorization": f"Bearer {self.secret.decode()}"}, dice, http)
        return fingerprint

    def _deliver(
        self, source: str, told: Any, headers: Mapping[str, str], dice: random.Random, http: httpx.Client
    ) -> None:
        body = json.dumps(told).encode()
        signed = "sha256=" + hmac.new(self.secret, body, hashlib.sha256).hexdigest()
        more = {**headers, "Content-Type": "application/json", "X-Hub-Signature-256": signed}
        left = 2 if dice.random() < TWICE else 1
        while left:
            with contextlib.suppress(httpx.HTTPError):
                left -= http.post(self.hooks(source), content=body, headers=more).is_success
            if left:
                self.tries += 1
                time.sleep(AGAIN)
