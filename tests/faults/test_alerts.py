"""F24: two real Alertmanagers that know nothing of each other, and tell of the same alerts again and again.

One run for each (alert, start, status), whatever they do.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults.report import Account
from faults.stage import AUTH, SOURCES, Stage, bound, free_port, until
from world import TOKEN

from service.embedded import Grouping, Webhook, alertmanager, answers
from service.records import Query

pytestmark = pytest.mark.faults
REFUSED = 'kfp_triggers_refusals_total{source="drift",status="503"}'
DRIFT = "  drift: {type: alertmanager, token: {file: uploads.token}}\n"
RULES = """
  fired:
    trigger: {source: drift, event: alert.firing}
    run: {pipeline: scoring@v1, params: {uri: "${event.fingerprint}"}}
  resolved:
    trigger: {source: drift, event: alert.resolved}
    run: {pipeline: scoring@v1, params: {uri: "${event.fingerprint}"}}
"""


@dataclass
class Peer:
    """One Alertmanager; it repeats every two seconds."""

    home: Path
    port: int
    hook: int  #: the port that it reports to
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir()
        told = Webhook("drift", f"http://127.0.0.1:{self.hook}/hooks/drift", TOKEN)
        one = alertmanager(self.home, self.port, told, Grouping("0s", "1s", "2s"))
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(one.argv, env=one.env, stdout=log, stderr=log)
        until(lambda: answers(self.port, "/-/ready"), what="Alertmanager is ready")

    def configure(self, **route: Any) -> None:
        """Other words for its route, or for its receiver."""
        file = self.home / "alertmanager" / "alertmanager.yml"
        config = json.loads(file.read_text())
        config["receivers"][0]["webhook_configs"][0] |= route.pop("receiver", {})
        config["route"] |= route
        file.write_text(json.dumps(config))
        httpx.post(f"http://127.0.0.1:{self.port}/-/reload", timeout=30).raise_for_status()

    def told(self, alerts: Sequence[dict[str, Any]]) -> None:
        """As Prometheus tells it."""
        httpx.post(f"http://127.0.0.1:{self.port}/api/v2/alerts", json=list(alerts)).raise_for_status()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture
def peers(stage: Stage, tmp_path: Path) -> Iterator[list[Peer]]:
    stage.write("sources.yaml", SOURCES + DRIFT)
    stage.rules(RULES)
    found = [Peer(tmp_path / name, free_port(), stage.port) for name in ("one", "two")]
    yield found
    for one in found:
        one.stop()


def alert(name: str, begun: datetime, ended: datetime | None = None) -> dict[str, Any]:
    labels = {"alertname": name, "model": "income"}
    ends = {"endsAt": ended.isoformat()} if ended else {}
    return {"labels": labels, "annotations": {}, "startsAt": begun.isoformat()} | ends


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def tell(peers: Sequence[Peer], *alerts: dict[str, Any]) -> None:
    for one in peers:
        one.told(alerts)


def deliveries(stage: Stage) -> int:
    """Notifications that were taken, the repeats too."""
    told = (line for line in metrics(stage).splitlines() if line.startswith("kfp_triggers_deliveries_total{"))
    return int(sum(float(line.split()[-1]) for line in told))


def by_rule(stage: Stage) -> dict[str, int]:
    rules = [run.rule for run in stage.runs()]
    return {rule: rules.count(rule) for rule in set(rules)}


@pytest.mark.quick
def test_F24_two_peers_that_repeat_make_one_run(stage: Stage, peers: list[Peer], account: Account) -> None:  # noqa: N802
    stage.api()
    tell(peers, alert("Drift", ago(60)))
    until(lambda: deliveries(stage) >= 4, what="both have repeated it")
    account.recovered(stage.settled(1))
    tell(peers, alert("Drift", ago(60), ago(0)))
    until(lambda: len(stage.runs()) == 2, what="its end is known")
    account.recovered(stage.settled(2))
    assert by_rule(stage) == {"fired": 1, "resolved": 1}


def test_F24_what_was_answered_with_503_or_not_at_all_is_told_again(  # noqa: N802
    stage: Stage, peers: list[Peer], account: Account
) -> None:
    stage.api(KFP_TRIGGERS_STORE__BUSY_TIMEOUT="0.5").kill()
    tell(peers, alert("Away", ago(60)))
    time.sleep(2)
    stage.api(KFP_TRIGGERS_STORE__BUSY_TIMEOUT="0.5")
    began = time.monotonic()
    account.recovered(stage.settled(1, within=60) + time.monotonic() - began)
    with stage.held():
        tell(peers, alert("Refused", ago(60)))
        until(lambda: REFUSED in metrics(stage), what="503 is answered")
    account.recovered(stage.settled(2, within=60))
    assert by_rule(stage) == {"fired": 2}


def metrics(stage: Stage) -> str:
    return httpx.get(f"http://127.0.0.1:{stage.port}/metrics", timeout=60).text


def test_F24_an_alert_that_flaps_makes_a_run_for_each_start(  # noqa: N802
    stage: Stage, peers: list[Peer], account: Account
) -> None:
    stage.api()
    for turn in range(1, 4):
        begun = ago(0)
        tell(peers, alert("Flap", begun))
        until(lambda turn=turn: by_rule(stage).get("fired") == turn, what="it fires")
        tell(peers, alert("Flap", begun, ago(0)))
        until(lambda turn=turn: by_rule(stage).get("resolved") == turn, what="it ends")
    account.recovered(stage.settled(6))
    assert account.seconds[-1] <= bound()
    assert by_rule(stage) == {"fired": 3, "resolved": 3}


def test_F24_the_same_alert_in_another_group_makes_no_run(  # noqa: N802
    stage: Stage, peers: list[Peer], account: Account
) -> None:
    stage.api()
    begun = ago(60)
    tell(peers, alert("One", begun), alert("Two", begun))
    until(lambda: len(stage.runs()) == 2, what="both are known")
    before = deliveries(stage)
    for one in peers:
        one.configure(group_by=["model"])
    tell(peers, alert("One", begun), alert("Two", begun))
    until(lambda: deliveries(stage) > before + 1, what="they are told of together")
    account.recovered(stage.settled(2))
    assert by_rule(stage) == {"fired": 2}


def test_F24_a_notification_that_leaves_alerts_out_says_so(  # noqa: N802
    stage: Stage, peers: list[Peer], account: Account
) -> None:
    stage.api()
    peers[0].configure(group_by=["model"], receiver={"max_alerts": 1})
    three = [alert(name, ago(60)) for name in ("One", "Two", "Three")]
    tell(peers[:1], *three)
    until(stage.runs, what="the first is known")
    with stage.store() as store:
        assert max(found.event.data["truncated"] for found in store.events.list(Query(limit=10))) > 0
    tell(peers[1:], *three)
    account.recovered(stage.settled(3))


@pytest.mark.quick
def test_F24_a_body_that_is_cut_off_or_tells_of_an_end_alone(stage: Stage, account: Account) -> None:  # noqa: N802
    stage.write("sources.yaml", SOURCES + DRIFT)
    stage.rules(RULES)
    stage.api()
    times = {"startsAt": "2026-11-21T07:00:00Z", "endsAt": "2026-11-21T08:00:00Z"}
    ended = {"status": "resolved", "labels": {"alertname": "End"}, "annotations": {}, "fingerprint": "f" * 16} | times
    words = {"receiver": "drift", "groupKey": "{}", "version": "4", "truncatedAlerts": 0, "status": "resolved"}
    body = json.dumps(words | {"alerts": [ended]}).encode()
    assert stage.post(body[:-20], "drift", AUTH) == 202
    assert stage.post(body, "drift", AUTH) == 202
    assert stage.post(body, "drift", AUTH) == 200
    account.recovered(stage.settled(1))
    assert by_rule(stage) == {"resolved": 1}
    assert stage.verified()["events"]["quarantined"] == 1
