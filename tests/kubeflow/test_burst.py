"""2,000 events at once against a server that makes 100 runs a second: no storm of errors, all submitted, in order."""

import time
from collections import defaultdict
from pathlib import Path

from kfpserver import Stub
from kfpworld import account, drop, made

from service.duties import Duties

KEYS, VERSIONS = 200, 10
LIMIT, BURST = 100.0, 10  #: of the server
RATE = 90.0  #: of ours


def test_a_burst_meets_the_servers_limit_without_a_storm(tmp_path: Path, stub: Stub) -> None:
    stub.configure(qps=LIMIT, burst=BURST, over="429")
    stub.script(running=1, pending=1)
    place = made(tmp_path, stub, rate=RATE, burst=5, polls=600)
    place.push()
    wanted: dict[str, list[str]] = defaultdict(list)
    began = time.monotonic()
    with place.opened(rings=True) as app:
        duties = Duties(app, app.pace)
        try:
            for number in range(KEYS * VERSIONS):
                key = f"{number % KEYS}.csv"
                told = {"eTag": f"e{number}", "sequencer": f"187A5B1C{number:08X}", "request": str(number)}
                wanted[key].append(drop(app, key, **told))
            delivered = time.monotonic() - began
            while len(stub.counts()["keys"]) < KEYS * VERSIONS:
                assert time.monotonic() - began < 450, stub.counts()["runs"]
                time.sleep(0.5)
        finally:
            duties.close()
        seconds = time.monotonic() - began
        counts = stub.counts()
        print(
            f"{KEYS * VERSIONS} events: stored in {delivered:.1f} s, submitted in {seconds:.1f} s: {counts['statuses']}"
        )
        assert set(counts["executed_keys"].values()) == {1}
        assert {status for status in counts["statuses"] if int(status) >= 400} == set()
        made_in_order: dict[str, list[str]] = defaultdict(list)
        for one in stub.control("GET", "executions"):
            key = one["display_name"].split(" · ")[1].removeprefix("s3://user-ids/")
            made_in_order[key].append(one["display_name"].split()[-1])
        for key, events in wanted.items():
            run_keys = [app.ledger.runs.of_event(event_id)[0].run_key for event_id in events]
            assert made_in_order[key] == run_keys, key
        assert account(app) == {}
