"""What docs/ shows: every block is run or loaded here, but for those that are marked as needing a cluster.

A block's second word says what it is: `file=PATH` is a file of the tour's home, `background` a command that is left
running, `cluster` is not run. All other shell blocks of a page are one tour, in its order, as a new user would take it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kfpserver import SPEC, Stub, kfp_stub

from service.flow.cancel import ASK_AGAIN, GIVE_UP
from service.flow.submit import TRIES
from service.lifecycle import OF_KFP
from service.packages import KFP_AT_MOST
from service.settings import BackendSettings, PaceSettings, load
from service.wiring import backends, rulebook
from triggers.rules.params import MAX_INT, MAX_VALUE
from triggers.sourcefile import load_sources

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
KUBEFLOW = ROOT / "docs/kubeflow.md"
PACE = {"LEASE": "2", "SETTLE": "5", "SWEEP": "0.2", "TAKEOVER": "0", "WATCH": "0.1"}
LANGUAGES = {"text", "sh", "toml", "yaml", "json", "python"}
KINDS = {"", "cluster", "background"}
LEGACY = ("bucket", "key", "access_key", "secret_key")


@dataclass(frozen=True)
class Block:
    """A fenced block, and what its second word says of it."""

    page: Path
    line: int
    language: str
    word: str
    text: str

    @property
    def file(self) -> str:
        """The path that it is to be written to, or ""."""
        return self.word.removeprefix("file=") if self.word.startswith("file=") else ""


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    fences = re.finditer(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, text[: one.start()].count("\n") + 1, *one.groups()) for one in fences]


ALL = [block for page in PAGES for block in blocks(page)]


def kind_of(block: Block) -> str:
    """Of a YAML block: sources, rules, or kubernetes."""
    found = list(yaml.safe_load_all(block.text))
    if found[0].get("apiVersion") == "kfp-triggers/v1":
        return "sources" if "sources" in found[0] else "rules"
    return "kubernetes"


def name_of(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


def of_kind(*kinds: str) -> Any:
    """Those of all pages, as a test's parameters."""
    found = [one for one in ALL if (kind_of(one) if one.language == "yaml" else one.language) in kinds]
    return pytest.mark.parametrize("block", found, ids=name_of)


def pipeline(name: str, **inputs: str) -> bytes:
    """The least package with these inputs, by their types."""
    declared = {key: {"parameterType": kind} for key, kind in inputs.items()}
    root = {"dag": {"tasks": {"one": {}}}, "inputDefinitions": {"parameters": declared}}
    return json.dumps(SPEC | {"pipelineInfo": {"name": name}, "root": root}).encode()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("stub")) as started:
        yield started


def test_every_fence_is_a_block_of_a_known_kind() -> None:
    for page in PAGES:
        assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) == 2 * len(blocks(page)), page
    assert {block.language for block in ALL} <= LANGUAGES
    assert [name_of(one) for one in ALL if not one.file and one.word not in KINDS] == []
    assert [name_of(one) for one in ALL if one.word in KINDS - {""} and one.language != "sh"] == []


@of_kind("toml")
def test_settings_load(block: Block, home: Path) -> None:
    (home / "settings.toml").write_text(block.text)
    found = load(home)
    assert found.backends or found.secret_params or block.text.startswith("[retention]")


@of_kind("sources")
def test_sources_load(block: Block) -> None:
    assert load_sources(block.text, name_of(block))


@of_kind("rules")
def test_rules_load_on_the_sources_and_settings_of_their_page(
    block: Block, home: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipelines stand on a server; each backend that the page has is that server."""
    page = [one for one in ALL if one.page == block.page]
    names = {
        name
        for one in page
        if one.language == "toml"
        for name in re.findall(r"^\[backends\.(.+)]$", one.text, re.MULTILINE)
    }
    for name in names:
        monkeypatch.setenv(f"KFP_TRIGGERS_BACKENDS__{name.upper()}__ENDPOINT", stub.url)
    allowed = [tomllib.loads(one.text).get("secret_params", {}) for one in page if one.language == "toml"]
    monkeypatch.setenv(
        "KFP_TRIGGERS_SECRET_PARAMS", json.dumps({name: one for each in allowed for name, one in each.items()})
    )
    monkeypatch.setenv("KFP_TRIGGERS_BACKENDS__DEFAULT__ENDPOINT", stub.url)
    settings = load(home)
    server = backends(settings)["default"]
    server.push("legacy-scoring", "v1", pipeline("legacy-scoring", **dict.fromkeys(LEGACY, "STRING")))
    server.push("first", "v1", pipeline("first", uri="STRING", size="NUMBER_INTEGER"))
    server.push("annotate", "v1", pipeline("annotate", event_uri="STRING"))
    senders: dict[str, Any] = {}
    for one in page:
        if one.language == "yaml" and kind_of(one) == "sources":
            senders |= yaml.safe_load(one.text)["sources"]
    sources = yaml.safe_dump({"apiVersion": "kfp-triggers/v1", "sources": senders})
    _, rules, warnings = rulebook(settings).check({"sources.yaml": sources, "rules/page.yaml": block.text})
    assert rules.rules
    assert [str(one) for one in warnings] == []


@of_kind("kubernetes")
def test_manifests_are_whole(block: Block) -> None:
    for one in yaml.safe_load_all(block.text):
        assert one["apiVersion"]
        assert one["kind"]
        assert one["metadata"]["name"]


def test_the_rights_on_the_page_are_those_of_the_manifests() -> None:
    shipped = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/profile/rbac.yaml").read_text()))
    assert shipped in [list(yaml.safe_load_all(one.text)) for one in blocks(KUBEFLOW) if one.language == "yaml"]


def rows(heading: str) -> Sequence[Sequence[str]]:
    """Those of the table under a heading, without its head."""
    section = KUBEFLOW.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_states_is_the_code_s() -> None:
    told = {state.strip("`"): ours.strip("`") for state, ours, _ in rows("States")}
    assert told == {state or "no state": str(ours) for state, ours in OF_KFP.items()}


def test_the_table_of_settings_has_them_all() -> None:
    table = [(re.findall(r"`(\w+)`", names), shown) for names, _, shown in rows("Settings of a backend")]
    fields = BackendSettings.model_fields
    assert sorted(name for names, _ in table for name in names) == sorted(fields)
    for names, shown in table:
        numbers = [one for name in names if type(one := fields[name].default) in {int, float}]
        assert not numbers or [float(word) for word in shown.split(", ")] == numbers, names


def test_the_numbers_in_the_text_are_the_code_s() -> None:
    text = " ".join(KUBEFLOW.read_text().split())
    assert (TRIES + 1, MAX_VALUE, MAX_INT, PaceSettings().settle) == (11, 64 << 10, 1 << 53, 180)
    assert (ASK_AGAIN.total_seconds(), GIVE_UP.total_seconds(), KFP_AT_MOST) == (60, 600, 3 << 20)
    for told in (
        "after eleven tries",
        "asked again every minute; ten minutes after the first time it is given up",
        "more than 64 KiB as JSON",
        "beyond 2^53",
        "`pace.settle`, 180",
        "at most 3 MiB",
    ):
        assert told in text


def test_the_owner_s_measurements_have_their_place() -> None:
    lines = KUBEFLOW.read_text().splitlines()
    assert [lines.count(f"<!-- measured: {word} -->") for word in ("begin", "end")] == [1, 1]
    assert lines.index("<!-- measured: begin -->") < lines.index("<!-- measured: end -->")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_lines_are_short(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert "://" in target or (page.parent / file).exists(), target
        assert not anchor or file or anchor in headings, target
    wrapped = [line for line in text.splitlines() if not line.startswith("|")]  # a row of a table has no break
    assert [line for line in wrapped if len(line) > 120] == []


class Tour:
    """A page's blocks in their order, in a folder of their own."""

    def __init__(self, home: Path, stub: Stub, page: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        found = [replace(one, text=one.text.replace(":8080", f":{self._port}")) for one in blocks(page)]
        self._blocks = [one for one in found if one.file or (one.language == "sh" and one.word != "cluster")]
        self._home = home
        ours = {f"KFP_TRIGGERS_PACE__{name}": seconds for name, seconds in PACE.items()}
        ours |= {"KFP_TRIGGERS_API__PORT": str(self._port), "KFP_TRIGGERS_HOME": str(home)}
        ours |= {"KFP_TRIGGERS_BACKENDS__DEFAULT__ENDPOINT": stub.url, "KFP_TRIGGERS_BACKENDS__DEFAULT__TIMEOUT": "1"}
        self._env = {**os.environ, **ours, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
        self.left: list[subprocess.Popen[bytes]] = []
        self.said = ""

    def take(self) -> None:
        """All of it; fails with what the block said."""
        for one in self._blocks:
            if one.file:
                (self._home / one.file).write_text(one.text)
            elif one.word == "background":
                self._leave(one)
            else:
                self.run(one.text, name_of(one))

    def run(self, text: str, name: str = "") -> str:
        argv = ["bash", "-ec", text]
        done = subprocess.run(argv, cwd=self._home, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}\n{done.stdout}\n{done.stderr}"
        self.said += done.stdout
        return done.stdout

    def _leave(self, one: Block) -> None:
        log = self._home / "background.txt"
        with log.open("ab") as output:
            argv = ["bash", "-c", f"exec {one.text}"]
            self.left.append(subprocess.Popen(argv, cwd=self._home, env=self._env, stdout=output, stderr=output))
        deadline = time.monotonic() + 30
        while b"api_listens" not in log.read_bytes():
            assert self.left[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=transport) as client:
            assert client.get(f"http://127.0.0.1:{self._port}/healthz").status_code == 200

    def end(self) -> None:
        for process in self.left:
            process.terminate()
        for process in self.left:
            process.wait(timeout=30)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page posts a notification with curl")
def test_the_ten_minutes_lead_to_runs_on_the_server(tmp_path: Path, stub: Stub) -> None:
    stub.reset()
    tour = Tour(tmp_path, stub, KUBEFLOW)
    try:
        tour.take()
        deadline = time.monotonic() + 30
        while len(found := json.loads(tour.run("kfp-triggers runs list --state succeeded --json"))["items"]) < 2:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
    finally:
        tour.end()
    assert {run["subject"] for run in found} == {"s3://uploads/incoming/ids.csv", "s3://uploads/incoming/more.csv"}
    assert all(run["display_name"].startswith("first · s3://uploads/") for run in found)
    for told in (
        "first@v1 is now on default",
        "income-training@v1 is now on default",
        "1 rules on 1 sources are right",
    ):
        assert told in tour.said
    assert "BAD" not in tour.said
