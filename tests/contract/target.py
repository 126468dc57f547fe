"""The KFP API server that the contract suite is run against, and everything that the suite makes on it.

Made by `conftest`. `KFP_ENDPOINT` names the server (with `KFP_NAMESPACE`, `KFP_TOKEN_FILE`, `KFP_COOKIES_FILE` and
`KFP_CA_FILE`); without it that is the stub. All that is made has `suffix` in its name, and `clear` deletes it.
"""

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from contract.proxy import Proxy, proxied
from kfpserver import Stub

from service.kubeflow import KubeflowBackend
from service.ports import Job, Observed, Pipeline, Sighting
from service.settings import BackendSettings

API = "/apis/v2beta1"
ENDED = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
OPEN = ("PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")
LONG = "long"  #: in the name of a run that the stub lets run; any other ends within a second there
STATELESS = "stateless"  #: in the name of a run that the stub takes the state from, as a real server may

Json = dict[str, Any]
Enough = Callable[[Mapping[str, Observed], Mapping[str, Sighting]], Any]  #: of what was seen, asked about or not


def word(letters: int = 16) -> str:
    """Random; of sixteen letters it has the shape of a run key."""
    return "".join(SystemRandom().choices("abcdefghijklmnopqrstuvwxyz234567", k=letters))


@dataclass(frozen=True, kw_only=True)
class Target:
    """One server, asked by the adapter or bare."""

    settings: BackendSettings
    http: httpx.Client
    suffix: str
    wait: float  #: seconds in which a server that executes at all brings a run to its end
    stub: Stub | None

    def name(self, what: str) -> str:
        """A name that says whose it is, and is deleted at the end."""
        return f"contract-{self.suffix} {what}"

    def backend(self, **changed: Any) -> KubeflowBackend:
        """A new adapter, which remembers nothing."""
        return KubeflowBackend("contract", self.settings.model_copy(update=changed))

    @contextmanager
    def counted(self, page_size: int = 0) -> Iterator[tuple[KubeflowBackend, Proxy]]:
        """An adapter, and what it asks; it is answered in pages of that size."""
        with proxied(self.settings.endpoint, self.http, page_size) as proxy:
            yield self.backend(endpoint=proxy.url), proxy

    def job(self, pipeline: Pipeline, what: str = LONG, key: str = "", **more: Any) -> Job:
        """A run of it; `what` is a part of its name."""
        key = key or word()
        bare = Job(
            run_key=key,
            display_name=f"{self.name(what)} {key}",
            description="",
            pipeline=pipeline,
            params={},
            experiment=self.name("experiment"),
            time_limit=600.0,
        )
        return replace(bare, **more)

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """Bare, whatever is answered."""
        url = self.settings.endpoint.rstrip("/") + API + path
        return self.http.request(method, url, json=body, params={key: one for key, one in query.items() if one != ""})

    def get(self, path: str, **query: Any) -> Json:
        """What must be there."""
        answer = self.ask("GET", path, **query)
        assert answer.status_code == 200, f"this server answered GET {path} with {said(answer)}"
        return dict(answer.json())

    def run(self, run_id: str) -> Json:
        """As the server has it."""
        return self.get(f"/runs/{run_id}")

    def runs(self, *predicates: Json, **query: Any) -> list[Json]:
        """The runs of a page, in our namespace."""
        return list(
            self.get("/runs", filter=where(*predicates), namespace=self.settings.namespace, **query).get("runs", [])
        )

    def post_run(self, what: str, **more: Any) -> httpx.Response:
        """A bare POST of a run in our experiment."""
        body = {"display_name": self.name(what), "experiment_id": self.experiment(), **more}
        return self.ask("POST", "/runs", body)

    def experiment(self) -> str:
        """The id of the suite's own, which there is since the first run."""
        name, namespace = self.name("experiment"), self.settings.namespace
        (found,) = self.get("/experiments", filter=where(equals("display_name", name)), namespace=namespace)[
            "experiments"
        ]
        return str(found["experiment_id"])

    def mine(self, what: str, key: str) -> list[Json]:
        """All that was made, of `runs`, `pipelines` or `experiments`."""
        found: dict[str, Json] = {}
        token = ""
        while True:
            given = {"namespace": self.settings.namespace, "page_size": 200, "page_token": token}
            page = self.get(f"/{what}", filter=where(contains("display_name", self.suffix)), **given)
            found.update({one[key]: one for one in page.get(what, [])})
            if not (token := page.get("next_page_token", "")):
                return list(found.values())

    def executed(self, run_id: str) -> Json:
        """The run when it has ended; skips where nobody executes runs, and never on the stub."""
        until = time.monotonic() + self.wait
        while True:
            run = self.run(run_id)
            if run.get("state") in ENDED:
                return run
            if time.monotonic() > until:
                break
            time.sleep(0.05 if self.stub else 1)
        assert not self.stub, f"the stub executes every run, but not this one within {self.wait:g} s: {run}"
        pytest.skip(f"this server executed no run within {self.wait:g} s")

    def begun(self, *run_ids: str) -> None:
        """Wait a little: a real server takes the state from a run that nobody executes within a second or two."""
        until = time.monotonic() + 3
        while time.monotonic() < until and any(self.run(run_id).get("state") == "PENDING" for run_id in run_ids):
            time.sleep(0.1)

    def looked(
        self,
        backend: KubeflowBackend,
        ids: Sequence[str],
        enough: Enough,
        within: float = 0,
    ) -> tuple[dict[str, Observed], dict[str, Sighting], bool]:
        """Look at what has not ended, again and again: what was seen last, and whether it was `enough` in time."""
        seen: dict[str, Observed] = {}
        others: dict[str, Sighting] = {}
        until = time.monotonic() + (within or max(self.wait, 10))
        while time.monotonic() < until:
            look = backend.observe([one for one in ids if one not in seen or not seen[one].ended_at])
            seen.update(look.seen)
            others.update({one.backend_id: one for one in look.others})
            if enough(seen, others):
                return seen, others, True
            time.sleep(60 / self.settings.polls)
        return seen, others, False

    def clear(self) -> None:
        """Delete it all; a server that is short of breath is asked again."""
        for _ in range(3):
            try:
                self._clear()
                if not self.left():
                    return
            except httpx.TransportError as error:
                print(f"not all could be deleted: {error}")

    def _clear(self) -> None:
        """Runs before experiments: KFP deletes and ends no run whose experiment it does not have."""
        for run in self.mine("runs", "run_id"):
            if run.get("state") not in ENDED:
                self.ask("POST", f"/runs/{run['run_id']}:terminate")
            self.ask("DELETE", f"/runs/{run['run_id']}")
        for pipeline in self.mine("pipelines", "pipeline_id"):
            path = f"/pipelines/{pipeline['pipeline_id']}"
            for version in self.get(f"{path}/versions", page_size=200).get("pipeline_versions", []):
                self.ask("DELETE", f"{path}/versions/{version['pipeline_version_id']}")
            self.ask("DELETE", path)
        for experiment in self.mine("experiments", "experiment_id"):
            self.ask("DELETE", f"/experiments/{experiment['experiment_id']}")

    def left(self) -> list[str]:
        """What `clear` could not delete."""
        kinds = {"runs": "run_id", "pipelines": "pipeline_id", "experiments": "experiment_id"}
        return [
            f"{what}/{one[key]} {one['display_name']}" for what, key in kinds.items() for one in self.mine(what, key)
        ]


def all_of(ids: Sequence[str]) -> Enough:
    """Each of them was seen."""
    return lambda seen, _: set(ids) <= set(seen)


def settings_of(environment: Mapping[str, str], stub: Stub | None) -> BackendSettings:
    """What KFP_… say; an empty variable is none, for `make` gives them all."""
    given = {name: environment.get(f"KFP_{name.upper()}") or None for name in ("token_file", "cookies_file", "ca_file")}
    return BackendSettings(
        endpoint=stub.url if stub else environment["KFP_ENDPOINT"],
        namespace="" if stub else environment.get("KFP_NAMESPACE", ""),
        settle=60.0,
        rate=0.0,
        polls=6000 if stub else 600,
        **{name: Path(path) for name, path in given.items() if path and not stub},
    )


def client_of(settings: BackendSettings) -> httpx.Client:
    """Bare, with the same credentials; like the adapter it follows no redirect and no proxy setting."""
    headers = {}
    if settings.token_file:
        headers["Authorization"] = f"Bearer {settings.token_file.read_text().strip()}"
    if settings.cookies_file:
        headers["Cookie"] = settings.cookies_file.read_text().strip()
    verify = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
    return httpx.Client(headers=headers, verify=verify, timeout=30, trust_env=False)


def wait_of(environment: Mapping[str, str], stub: Stub | None) -> float:
    """How long a run may take until nobody is taken to execute it."""
    return float(environment.get("KFP_WAIT") or (5 if stub else 60))


def endpoint() -> str:
    """The real server's, "" for the stub."""
    return os.environ.get("KFP_ENDPOINT", "")


def equals(key: str, value: str) -> Json:
    """A predicate."""
    return {"operation": "EQUALS", "key": key, "string_value": value}


def contains(key: str, value: str) -> Json:
    """A predicate."""
    return {"operation": "IS_SUBSTRING", "key": key, "string_value": value}


def among(key: str, *values: str) -> Json:
    """A predicate."""
    return {"operation": "IN", "key": key, "string_values": {"values": list(values)}}


def where(*predicates: Json) -> str:
    """A filter, percent-encoded once more; a test says why."""
    return quote(json.dumps({"predicates": predicates}), safe="") if predicates else ""


def said(answer: httpx.Response) -> str:
    """Status and text, for a person."""
    return f"{answer.status_code}: {' '.join(answer.text.split())[:400]}"
