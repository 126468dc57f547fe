"""The stub KFP API server as tests use it: started, steered, asked what it did, and ended by pid. See tests/kfpstub."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TESTS = Path(__file__).parent
RUNS = "/apis/v2beta1/runs"
# The least that the server takes for a pipeline.
SPEC: dict[str, Any] = {
    "pipelineInfo": {"name": "tiny"},
    "root": {
        "dag": {"tasks": {"read": {}, "write": {"dependentTasks": ["read"]}}},
        "inputDefinitions": {"parameters": {"s": {"parameterType": "STRING", "isOptional": True}}},
    },
}


def where(key: str, operation: str = "EQUALS", **value: Any) -> str:
    """A filter of one predicate."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, **value}]})


class Stub:
    """One stub: where it is, and the control calls by name."""

    def __init__(self, store: Path, *args: str) -> None:
        self.store = store
        self.args = args
        self.port = 0
        self._started()

    def _started(self) -> None:
        argv = [sys.executable, "-m", "kfpstub.server", "--port", str(self.port), "--store", str(self.store)]
        argv += ["--parent", str(os.getpid()), *self.args]
        env = {**os.environ, "PYTHONPATH": str(TESTS)}
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def kill(self) -> None:
        """As kill -9 does; what was answered is in the store."""
        self.http.close()
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        """By pid."""
        self.http.close()
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        self._ended()

    def restart(self) -> None:
        """On the same port, with the same runs. Faults, scripts and request counts are forgotten."""
        self._started()

    def _ended(self) -> None:
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def create(self, name: str, **more: Any) -> httpx.Response:
        """POST /runs, of the least pipeline unless another is named; as any client may, and counted like theirs."""
        return self.http.post(RUNS, json={"display_name": name, "pipeline_spec": SPEC, **more})

    def upload(self, what: str, package: str, **query: str) -> Any:
        """A package (`upload`) or a version (`upload_version`), answered."""
        files = {"uploadfile": ("package.yaml", package)}
        return self.http.post(f"/apis/v2beta1/pipelines/{what}", params=query, files=files).json()

    def listed(self, filter_: str = "", **query: Any) -> list[Any]:
        """One page of runs."""
        answer = self.http.get(RUNS, params={"filter": filter_, **query})
        assert answer.status_code == 200, answer.text
        return list(answer.json().get("runs", []))

    def state(self, run_id: str) -> str | None:
        """What a GET says."""
        return dict(self.http.get(f"{RUNS}/{run_id}").json()).get("state")

    def control(self, method: str, what: str, body: Any = None) -> Any:
        """`/_stub/{what}`, answered."""
        answer = self.http.request(method, f"/_stub/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, mode: str, *, method: str = "", path: str = "", body: str = "", **more: Any) -> None:
        """The next request that fits meets it; `times`, `after`, `seconds` and what the mode needs, by name.

        `path` and `body` are regular expressions, searched for in the request; what a `status` says is its `answer`.
        """
        match = {name: value for name, value in (("method", method), ("path", path), ("body", body)) if value}
        said = {"body": more.pop("answer")} if "answer" in more else {}
        self.control("POST", "faults", {"mode": mode, "match": match, **said, **more})

    def heal(self) -> None:
        """No more faults."""
        self.control("DELETE", "faults")

    def script(self, match: str = "", **more: Any) -> None:
        """How runs go whose name holds `match`: outcome, pending, running, task, message, existing, ..."""
        self.control("POST", "script", {"match": match, **more})

    def counts(self) -> Any:
        """What was made and asked for."""
        return self.control("GET", "counts")

    def configure(self, **settings: Any) -> None:
        """kfpstub.machine.Settings by name."""
        self.control("POST", "config", settings)

    def advance(self, seconds: float) -> None:
        """The stub's clock."""
        self.control("POST", "clock", {"advance": seconds})

    def freeze(self, at: float) -> None:
        """The stub's clock stands still at this moment."""
        self.control("POST", "clock", {"set": at})

    def many_runs(self, count: int, **more: Any) -> list[str]:
        """The ids of new runs that nobody created."""
        return list(self.control("POST", "runs", {"count": count, **more})["run_ids"])

    def reset(self, *what: str) -> None:
        """Everything, or what is named."""
        self.control("POST", "reset", {"what": list(what)} if what else {})


@contextmanager
def kfp_stub(tmp_path: Path, *args: str) -> Iterator[Stub]:
    """A fresh one; ended by pid, also when the test fails."""
    stub = Stub(tmp_path / "kfp-stub.jsonl", *args)
    try:
        yield stub
    finally:
        stub.stop()
