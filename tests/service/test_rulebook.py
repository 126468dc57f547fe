"""The files in force: taken up when they change, kept when a change is broken, said so wherever one looks."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeBackend, FakeClock
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from world import RULES, SOURCES, TOKEN

from service.errors import Temporary
from service.localpackages import Packages
from service.ports import Pipeline
from service.rulebook import RuleBook
from triggers.yamlfile import Problems

BROKEN = "apiVersion: kfp-triggers/v1\nrules: {score: {trigger: 5}}\n"
NONE = "apiVersion: kfp-triggers/v1\nrules: {}\n"


class Files:
    """A home whose files a test writes, and the book over it."""

    def __init__(self, home: Path) -> None:
        self.home, self.kept, self.busy = home, list[str](), False
        (home / "rules").mkdir()
        self.write("sources.yaml", SOURCES)
        self.write("rules/rules.yaml", RULES)
        self.write("uploads.token", TOKEN)
        self.book = self.another()

    def another(self) -> RuleBook:
        return RuleBook(self.home, {"default": FakeBackend()}, FakeClock(), every=0, kept=self)

    def last_rules(self) -> dict[str, str]:
        return {}

    def keep_rules(self, digest: str, _files: object, _now: object) -> None:
        if self.busy:
            raise Temporary("the store does not take it now")
        self.kept.append(digest)

    def write(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)

    @property
    def rules(self) -> list[str]:
        return list(self.book.now().rules.rules)

    @property
    def problems(self) -> list[str]:
        return list(self.book.now().problems)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)


def test_a_change_is_taken_up_and_its_text_kept(files: Files) -> None:
    assert files.rules == ["score"]
    files.write("rules/rules.yaml", RULES.replace("score:", "rescore:"))
    assert files.rules == ["rescore"]
    assert len(set(files.kept)) == 2


def test_nothing_changed_is_nothing_done(files: Files) -> None:
    first = files.book.now()
    os.utime(files.home / "sources.yaml", (1, 1))
    assert files.book.now() is first
    assert len(files.kept) == 1


def test_a_change_that_keeps_size_and_time_is_seen(files: Files) -> None:
    assert files.rules == ["score"]
    path = files.home / "rules" / "rules.yaml"
    before = path.stat()
    path.write_text(RULES.replace("score:", "sc0re:"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert files.rules == ["sc0re"]


def test_files_come_and_go(files: Files) -> None:
    files.write("rules/more.yaml", RULES.replace("score:", "more:"))
    assert files.rules == ["more", "score"]
    (files.home / "rules" / "rules.yaml").unlink()
    assert files.rules == ["more"]
    shutil.rmtree(files.home / "rules")
    assert (files.rules, files.problems) == ([], [])


def test_no_rules_at_all_are_right(files: Files) -> None:
    files.write("rules/rules.yaml", NONE)
    assert (files.rules, files.problems) == ([], [])


@pytest.mark.parametrize(
    ("name", "break_it", "says"),
    [
        ("rules/rules.yaml", BROKEN, "rules/rules.yaml:2: rules.score.trigger: must be a mapping"),
        ("rules/rules.yaml", RULES[: len(RULES) // 2], "rules/rules.yaml:"),
        ("rules/rules.yaml", "", "rules/rules.yaml:1: is no rule file"),
        ("rules/rules.yaml", RULES.replace("source: uploads", "source: upload"), "there is no source `upload`"),
        ("rules/more.yaml", RULES, "the name is taken by the rule in rules/more.yaml"),
        ("sources.yaml", SOURCES.replace("minio", "minoi"), "sources.yaml:4: sources.uploads.type: must be one of"),
        ("sources.yaml", "", "sources.yaml:1: must be a mapping"),
    ],
    ids=["a wrong rule", "half-written", "emptied", "another source", "a name twice", "a wrong source", "no sources"],
)
def test_a_broken_change_leaves_the_old_set_in_force(files: Files, name: str, break_it: str, says: str) -> None:
    whole = files.book.now()
    before = (files.home / name).read_text() if (files.home / name).exists() else None
    with capture_logs() as logs:
        files.write(name, break_it)
        assert any(says in problem for problem in files.problems), files.problems
        assert files.rules == ["score"]
    assert files.book.now().sources == whole.sources
    assert files.book.now().rules.hash == whole.rules.hash
    assert gauge("kfp_triggers_rule_problems") == len(files.problems)
    (said,) = [one for one in logs if one["event"] == "rules_refused"]  # once, however often it is looked at
    assert said["log_level"] == "error"
    assert said["problems"] == files.problems
    if before is None:
        (files.home / name).unlink()
    else:
        files.write(name, before)
    assert (files.rules, files.problems) == (["score"], [])
    assert gauge("kfp_triggers_rule_problems") == 0


def test_broken_sources_do_not_make_every_rule_look_wrong(files: Files) -> None:
    files.write("sources.yaml", SOURCES.replace("minio", "minoi"))
    assert [problem.partition(":")[0] for problem in files.problems] == ["sources.yaml"]


@pytest.mark.parametrize("name", ["sources.yaml", "rules/rules.yaml"])
def test_a_file_that_is_no_text_is_named(files: Files, name: str) -> None:
    assert files.rules == ["score"]
    (files.home / name).write_bytes(b"apiVersion: \xff")
    assert files.problems == [f"{name}:1: is not UTF-8 text: byte 12 cannot be read"]
    assert files.rules == ["score"]


def test_a_file_that_cannot_be_read_is_named(files: Files) -> None:
    (files.home / "rules" / "more.yaml").mkdir()
    (problem,) = files.problems
    assert "more.yaml" in problem


def test_a_home_without_files_has_nothing_in_force(tmp_path: Path) -> None:
    book = RuleBook(tmp_path, {}, FakeClock(), every=0)
    assert (dict(book.now().sources), dict(book.now().rules.rules), book.now().problems) == ({}, {}, ())


def test_a_store_that_is_busy_holds_up_no_change_and_keeps_its_text_later(files: Files) -> None:
    assert files.rules == ["score"]
    files.busy = True
    files.write("rules/rules.yaml", RULES.replace("score:", "rescore:"))
    assert files.rules == ["rescore"]
    assert len(files.kept) == 1
    files.busy = False
    assert files.rules == ["rescore"]
    assert len(files.kept) == 2


class Folder(FakeBackend):
    """A backend whose pipelines are files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.packages = Packages(folder)

    def pipeline(self, reference: str) -> Pipeline:
        return self.packages.pipeline(reference)


def test_a_package_that_comes_later_makes_its_rule_right(files: Files) -> None:
    folder = files.home / "packages"
    folder.mkdir()
    book = RuleBook(files.home, {"default": Folder(folder)}, FakeClock(), every=0)
    assert "no package scoring@v1" in "\n".join(book.now().problems)
    (folder / "scoring@v1.yaml").write_text(
        """
components: {}
deploymentSpec: {}
pipelineInfo: {name: scoring}
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      uri: {parameterType: STRING}
      model_version: {parameterType: NUMBER_INTEGER, isOptional: true}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"""
    )
    assert (list(book.now().rules.rules), book.now().problems) == (["score"], ())


def test_files_are_looked_at_no_more_often_than_asked(files: Files) -> None:
    book = RuleBook(files.home, {"default": FakeBackend()}, FakeClock(), every=3600)
    assert list(book.now().rules.rules) == ["score"]
    files.write("rules/rules.yaml", NONE)
    assert list(book.now().rules.rules) == ["score"]


def test_a_check_takes_nothing_up(files: Files) -> None:
    texts = files.book.files()
    with pytest.raises(Problems):
        files.book.check(texts | {"rules/rules.yaml": BROKEN})
    assert files.rules == ["score"]


@pytest.mark.parametrize(
    "content",
    [
        b"a secret of some length\n",
        b"\r\n a secret of some length \r\n",
        "ä secret of some length".encode(),
        b"\xff\x00 secret of some length",
    ],
)
def test_a_secret_is_the_files_bytes_without_the_space_around(files: Files, content: bytes) -> None:
    files.book.now()
    (files.home / "uploads.token").write_bytes(content)
    assert files.book.secrets("uploads") == [content.strip()]


def test_a_relative_secret_lies_in_the_home_wherever_one_stands(
    files: Files, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.book.now()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert files.book.secrets("uploads") == [TOKEN.encode()]


def test_an_absolute_secret_and_one_of_the_environment(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    other = files.home / "rules" / "other"
    other.write_text("absolute and long")
    source = f"{{type: github, secrets: [{{file: {other}}}, {{env: OUR_SECRET}}], repositories: [a/b]}}"
    files.write("sources.yaml", SOURCES + f"  code: {source}\n")
    files.book.now()
    monkeypatch.setenv("OUR_SECRET", "of the environment")
    assert files.book.secrets("code") == [b"absolute and long", b"of the environment"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text(" \n"), "is empty"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
)
def test_a_secret_that_is_not_there_is_waited_for(files: Files, spoil: Callable[[Path], object], says: str) -> None:
    files.book.now()
    spoil(files.home / "uploads.token")
    with pytest.raises(Temporary, match=says):
        files.book.secrets("uploads")


def test_a_file_that_ends_in_yml_is_not_read_and_said_so(files: Files) -> None:
    files.write("rules/more.yml", RULES.replace("score:", "other:"))
    with capture_logs() as told:
        assert files.rules == ["score"]
    assert ["more.yml" in one["warning"] for one in told if one["event"] == "rule_warning"] == [True]
