"""What each kind of sender tells during a soak, in the form in which it tells it, and the rule that hears it.

Every thing that is told has a *word* that no other has; the run that comes of it gets it as its parameter `uri`, so
that what was promised and what was executed can be held against each other. Used by `senders` and `soak`. A source type
without a kind here ends the soak before it begins.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

BUCKET, REPOSITORY, MODEL = "inbox", "acme/model", "income"
#: MinIO answers a PUT before it notes whom to tell, and after a start before it knows: then only the scan finds it.
SCAN = "30s"
BRANCHES = 20  #: that pushes go to in turn: a ref's events keep their order


@dataclass(frozen=True)
class Kind:
    """A source type, named as its source and its rule are."""

    share: float  #: of all that is told
    settings: str  #: of the source, beside its type and its secret
    event: str
    word: str  #: as an expression over the event


_REPOSITORIES = f'repositories: {{{REPOSITORY}: {{url: "https://git.example/model"}}}}'
KINDS: Mapping[str, Kind] = {
    "minio": Kind(0.38, f"buckets: [{BUCKET}], scan: {{every: {SCAN}}}", "object.created", "${event.object}"),
    "github": Kind(0.13, _REPOSITORIES, "git.push", "${event.sha}"),
    "gitlab": Kind(0.13, _REPOSITORIES, "git.push", "${event.sha}"),
    "git": Kind(0.04, _REPOSITORIES, "git.push", "${event.sha}"),
    "alertmanager": Kind(0.12, "", "alert.firing", "${default(event.labels, 'number', 'none')}"),
    "mlflow": Kind(0.10, f"models: [{MODEL}]", "model.version", "${event.model}/${event.version}"),
    "manual": Kind(0.10, "", "manual.fired", "${event.by}"),
}
_CREDENTIAL = {"minio": "token", "alertmanager": "token", "manual": "token"}


def sources_file() -> str:
    """sources.yaml; the secret stands in the file `secret`."""
    lines = ["apiVersion: kfp-triggers/v1", "sources:"]
    for name, kind in KINDS.items():
        credential = "token: {file: secret}" if name in _CREDENTIAL else "secrets: [{file: secret}]"
        lines.append(f"  {name}: {{{', '.join(filter(None, (f'type: {name}', credential, kind.settings)))}}}")
    return "\n".join(lines) + "\n"


def rules_file() -> str:
    """A rule for each source: one run for each of its events."""
    lines = ["apiVersion: kfp-triggers/v1", "rules:"]
    for name, kind in KINDS.items():
        lines += [f"  {name}:", f"    trigger: {{source: {name}, event: {kind.event}}}"]
        lines += [f'    run: {{pipeline: echo@v1, params: {{uri: "{kind.word}", size: 1}}}}']
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Post:
    """What goes to a source's address, the same at each try."""

    word: str
    body: bytes
    headers: Mapping[str, str]


def _sha(*of: object) -> str:
    return hashlib.sha1(repr(of).encode()).hexdigest()  # noqa: S324  # as Git's names are


def github(number: int, seed: int, secret: bytes) -> Post:
    """A push to a branch."""
    before, after = _sha("github", seed, number - BRANCHES), _sha("github", seed, number)
    told = {
        "ref": f"refs/heads/b{number % BRANCHES}", "before": before, "after": after, "forced": False,
        "repository": {"full_name": REPOSITORY}, "commits": [],
        "head_commit": {"id": after, "message": f"change {number}", "author": {"name": "ada"}},
    }  # fmt: skip
    body = json.dumps(told).encode()
    signed = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": f"{seed}-{number}", "X-Hub-Signature-256": signed}
    return Post(after, body, headers)


def gitlab(number: int, seed: int, secret: bytes) -> Post:
    """A push to a branch."""
    before, after = _sha("gitlab", seed, number - BRANCHES), _sha("gitlab", seed, number)
    commit = {"id": after, "message": f"change {number}", "author": {"name": "ada"}, "added": [f"f{number}"]}
    told = {
        "ref": f"refs/heads/b{number % BRANCHES}", "before": before, "after": after, "checkout_sha": after,
        "project": {"path_with_namespace": REPOSITORY}, "commits": [commit], "total_commits_count": 1,
    }  # fmt: skip
    headers = {"X-Gitlab-Event": "Push Hook", "Idempotency-Key": f"{seed}-{number}", "X-Gitlab-Token": secret.decode()}
    return Post(after, json.dumps(told).encode(), headers)


def mlflow(number: int, seed: int, secret: bytes) -> Post:
    """A model's version was made; MLflow keeps one signature over its tries."""
    version, now, once = str(number + 1), str(int(time.time())), f"{seed}-{number}"
    told = {
        "entity": "model_version", "action": "created", "timestamp": datetime.now(UTC).isoformat(),
        "data": {"name": MODEL, "version": version, "source": "s3://models/x", "run_id": "r", "tags": {}},
    }  # fmt: skip
    body = json.dumps(told).encode()
    digest = hmac.new(secret, f"{once}.{now}.".encode() + body, hashlib.sha256).digest()
    signed = f"v1,{base64.b64encode(digest).decode()}"
    headers = {"X-MLflow-Delivery-Id": once, "X-MLflow-Timestamp": now, "X-MLflow-Signature": signed}
    return Post(f"{MODEL}/{version}", body, headers)


def manual(number: int, seed: int, secret: bytes) -> Post:
    """A script fires the rule: all of them are on one subject, and so one after the other."""
    word = f"script-{seed}-{number}"
    body = json.dumps({"id": word, "rule": "manual", "by": word}).encode()
    return Post(word, body, {"Authorization": f"Bearer {secret.decode()}"})


HOOKS: Mapping[str, Callable[[int, int, bytes], Post]] = {
    "github": github, "gitlab": gitlab, "mlflow": mlflow, "manual": manual,
}  # fmt: skip


def alert(word: str, began: datetime, ended: datetime | None) -> dict[str, Any]:
    """As Prometheus tells Alertmanager: what still fires ends by itself unless it is told again in time."""
    return {
        "labels": {"alertname": "Drift", "number": word},
        "annotations": {"summary": word},
        "startsAt": began.isoformat(),
        "endsAt": (ended or datetime.now(UTC) + timedelta(seconds=30)).isoformat(),
        "generatorURL": "http://prometheus.example/graph",
    }
