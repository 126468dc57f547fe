"""Real senders against the real service: what they send becomes one run each, and nothing that was accepted is lost."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import scene
from world import notification

from service.buckets import client

ODD_KEYS = [
    "two words.csv",
    "a+b.csv",
    "100%.csv",
    "%2F%20+ .csv",
    "été/日本語.csv",
    "deep/er/x=1/&?#;.csv",
    "trailing space ",
]


def token(running: Any, source: str) -> str:
    return str((running.stack.home / "secrets" / source).read_text())


def bearer(running: Any, source: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(running, source)}", "Content-Type": "application/json"}


def runs_with(running: Any, uri: str) -> list[dict[str, Any]]:
    return [run for run in running.runs("echo") if run["params"]["uri"] == uri]


def test_every_odd_key_makes_one_run_with_the_key_as_it_is(running: Any) -> None:
    store = client(running.stack.s3)
    for number, key in enumerate(ODD_KEYS):
        store.put_object("inbox", key, io.BytesIO(b"x" * (number + 1)), number + 1)
    for number, key in enumerate(ODD_KEYS):
        uri = f"s3://inbox/{key}"
        running.until(lambda uri=uri: [run for run in runs_with(running, uri) if run["recorded_at"]], uri)
        (run,) = runs_with(running, uri)
        assert (run["state"], run["params"]["size"]) == ("succeeded", number + 1), run["error"]
        if running.stub is None:
            assert run["outputs"]["parameters"]["Output"] == uri
        assert running.executions(run["run_key"]) == 1


def test_the_same_notification_five_times_at_once_is_one_run(running: Any) -> None:
    body = notification("five times.csv").replace(b"user-ids", b"inbox")
    headers = bearer(running, "uploads")

    def post(_: int) -> httpx.Response:
        return httpx.post(running.stack.hook("uploads"), content=body, headers=headers)

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(post, range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 202]
    assert len({answer.json()["events"][0] for answer in answers}) == 1
    uri = "s3://inbox/five times.csv"
    running.until(lambda: [run for run in runs_with(running, uri) if run["recorded_at"]], uri)
    assert len(runs_with(running, uri)) == 1


def test_an_object_written_again_is_another_event(running: Any) -> None:
    store = client(running.stack.s3)
    for body in (b"1", b"1", b"2"):
        store.put_object("inbox", "again.csv", io.BytesIO(body), len(body))
    uri = "s3://inbox/again.csv"
    running.until(lambda: len(runs_with(running, uri)) == 3, "three runs")


@pytest.mark.parametrize(
    ("source", "headers", "body", "status"),
    [
        ("uploads", {"Authorization": "Bearer wrong"}, b"{}", 401),
        ("uploads", {}, b"{}", 401),
        ("drift", {"Authorization": "Bearer {uploads}"}, b"{}", 401),
        ("model-repo", {"X-KFP-Triggers-Signature": "sha256=" + "0" * 64}, b"{}", 401),
        ("nobody", {"Authorization": "Bearer {uploads}"}, b"{}", 404),
        ("uploads", {"Authorization": "Bearer {uploads}", "Content-Encoding": "gzip"}, b"{}", 415),
        ("uploads", {"Authorization": "Bearer {uploads}", "Content-Type": "text/plain"}, b"{}", 415),
        ("uploads", {"Authorization": "Bearer {uploads}"}, b" " * ((1 << 20) + 1), 413),
        ("uploads", {"Authorization": "Bearer {uploads}"}, b"not json", 202),
        ("uploads", {"Authorization": "Bearer {uploads}"}, b'{"EventName": "s3:Unheard:Of", "Records": [{}]}', 202),
        ("uploads", {"Authorization": "Bearer {uploads}"}, b"[" * 100_000, 202),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_answer_policy_holds(running: Any, source: str, headers: dict[str, str], body: bytes, status: int) -> None:
    filled = {name: text.replace("{uploads}", token(running, "uploads")) for name, text in headers.items()}
    sent = {"Content-Type": "application/json", **filled}
    answer = httpx.post(running.stack.hook(source), content=body, headers=sent)
    assert answer.status_code == status
    if status == 202:
        (event_id,) = answer.json()["events"]
        assert running.get(f"events/{event_id}")["state"] == "quarantined"


def test_a_push_to_another_branch_arrives_by_the_hook_and_trains_nothing(running: Any) -> None:
    scene.git("push", "--quiet", "origin", "HEAD:other", cwd=running.clone)
    event = running.until(lambda: _pushed(running, "refs/heads/other"), "the push")
    assert event["data"]["sha"] == scene.git("rev-parse", "HEAD", cwd=running.clone).strip()
    assert (event["state"], event["reason"]) == ("unmatched", "no_rule")


def _pushed(running: Any, ref: str) -> Any:
    found = [item for item in running.get("events", source="model-repo")["items"] if item["data"]["ref"] == ref]
    return found[0] if found and found[0]["state"] != "accepted" else None


def test_a_rule_whose_expression_fails_says_so_and_loses_nothing(running: Any) -> None:
    rules = running.stack.home / "rules" / "fails.yaml"
    rules.write_text(
        "apiVersion: kfp-triggers/v1\nrules:\n  fails:\n"
        '    trigger: {source: uploads, event: object.created, bucket: inbox, key: "fails/**"}\n'
        "    run: {pipeline: echo@v1, params: {uri: \"${event.metadata['absent']}\", size: 1}}\n"
    )
    try:
        running.until(lambda: _readyz(running)["rules"]["count"] == 5, "the new rule")
        client(running.stack.s3).put_object("inbox", "fails/a.csv", io.BytesIO(b"x"), 1)
        decision = running.until(lambda: running.get("decisions", rule="fails")["items"], "its decision")[0]
        assert (decision["outcome"], decision["reason"]) == ("skip", "rule_error")
        assert "absent" in decision["detail"]
    finally:
        rules.unlink()


def test_a_broken_rule_file_is_said_in_readyz_and_changes_nothing(running: Any) -> None:
    broken = running.stack.home / "rules" / "zz-broken.yaml"
    broken.write_text("apiVersion: kfp-triggers/v1\nrules: {x: {trigger: {sauce: uploads}}}\n")
    try:
        found = running.until(lambda: (one := _readyz(running))["status"] == "degraded" and one, "degraded")
        assert any("sauce" in problem for problem in found["rules"]["problems"])
    finally:
        broken.unlink()
    running.until(lambda: _readyz(running)["status"] == "ready", "ready again")


def _readyz(running: Any) -> Any:
    return httpx.get(f"{running.stack.api}/readyz").json()
