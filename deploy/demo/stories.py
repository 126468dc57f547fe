"""The four stories: each does what a sender would, waits for what the service makes of it, and says how it came out."""

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import data
import httpx
import pyarrow.parquet as pq
from scene import Demo, Failed, push

from service.buckets import client

DROPPED = "incoming/eu/users 2026+11 — été.csv"


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


STORIES: Sequence[tuple[str, Callable[[Demo], str]]] = (
    ("The model repository's first push trains the first champion", first_push),
    ("A file of user ids is dropped into the bucket", dropped_file),
    ("A second commit is pushed", second_push),
    ("A drift alert fires, repeats and resolves", alert),
)
