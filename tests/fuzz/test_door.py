"""Nothing that was answered with 2xx is lost: any request, at the door of real processes, ends with its reason."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults.stage import Mother, Stage, push, staged, template, until
from fuzz.payloads import CONFIG, Request, requests
from hypothesis import strategies as st
from kfpserver import kfp_stub

from service.records import EventState
from triggers.sources import SOURCES

RULE = """
  {name}:
    trigger: {{source: {source}, event: {event}}}
    run: {{pipeline: scoring@v1, params: {{uri: "${{event.subject}}"}}}}
"""
EVENTS = {"minio": "object.created", "git": "git.push", "github": "git.push", "gitlab": "git.push"}
EVENTS |= {"alertmanager": "alert.firing", "mlflow": "model.alias"}
LEFT_OUT = frozenset({"content-length", "host", "connection", "transfer-encoding"})
NO_HTTP = "Invalid HTTP request received."  #: uvicorn's answer to a header that no HTTP may have


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """One source of each type, a rule for each, an API and a worker's duties."""
    mother = Mother()
    with kfp_stub(tmp_path, "--pending", "0", "--running", "0.1") as stub:
        push(stub)
        one = staged(tmp_path, stub, mother, template(tmp_path))
        sources = {name: {"type": name, "auth": "none"} | dict(CONFIG[name]) for name in SOURCES}
        one.write("sources.yaml", json.dumps({"apiVersion": "kfp-triggers/v1", "sources": sources}))
        one.rules(*(RULE.format(name=f"of-{source}", source=source, event=event) for source, event in EVENTS.items()))
        one.api()
        yield one
        one.close()
        mother.close()


def test_what_is_taken_is_stored_and_ends(stage: Stage, fuzz: Any) -> None:
    told: set[str] = set()
    with httpx.Client(base_url=f"http://127.0.0.1:{stage.port}", timeout=20) as client:

        def posted(sent: tuple[str, Request]) -> None:
            source, (headers, body) = sent
            kept = {name: text.encode("latin-1") for name, text in headers.items() if name not in LEFT_OUT}
            answer = client.post(f"/hooks/{source}", content=body, headers=kept)
            if answer.text == NO_HTTP:
                return
            assert answer.status_code in {200, 202, 413, 415}, answer.text
            if answer.is_success:
                told.update(answer.json()["events"])

        fuzz.play(0.25, posted, sent=st.sampled_from(sorted(SOURCES)).flatmap(_of))
    with stage.store() as store:
        missing = [one for one in told if store.events.get(one) is None]
        assert not missing
        until(lambda: _is_drained(store.account.gauges()), 300, what=lambda: str(store.account.gauges()))
        ended = [store.events.get(one) for one in told]
        assert all(one is not None and one.state is not EventState.ACCEPTED for one in ended)
    found = stage.verified()
    if fuzz.minutes:
        print(f"\n{len(told)} events told of, of them {found['events']}, runs {found['runs']}")


def _of(source: str) -> st.SearchStrategy[tuple[str, Request]]:
    return requests(source).map(lambda request: (source, request))


def _is_drained(counted: Any) -> bool:
    ends = {"succeeded", "failed", "cancelled", "dead", "gone", "superseded"}
    return not (counted["event"].get("accepted") or counted["decision"].get("wait") or set(counted["run"]) - ends)
