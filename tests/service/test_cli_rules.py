"""`kfp-triggers rules`: every problem with its place and remedy, and what would happen. Nothing runs for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import Shell

from triggers.rules import grammar

CAPTURED = Path(__file__).parents[1] / "triggers" / "sources" / "captured"
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {env: NOT_SET}, buckets: [user-ids]}
  code: {type: github, secrets: [{env: NOT_SET}], repositories: [Codertocat/Hello-World]}
  drift: {type: alertmanager, token: {env: NOT_SET}}
"""
RULES = """
apiVersion: kfp-triggers/v1
rules:
  score:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    lookup: {model: {mlflow_model: income-classifier, alias: champion}}
    require: [{expr: "event.size > 0", reason: empty file}]
    run:
      pipeline: scoring@v1
      params: {uri: "${event.object}", model_version: "${lookup.model.version}"}
      writes: ["s3://predictions/${event.name}-${run.key}"]
  retrain-on-push:
    trigger: {source: code, event: git.push}
    run: {pipeline: training@v1, params: {revision: "${event.sha}"}}
  retrain-on-drift:
    trigger: {source: drift, event: alert.firing}
    run: {pipeline: training@v1, params: {revision: "${event.alertname}"}}
"""
PACKAGE = """
components: {{}}
deploymentSpec: {{}}
pipelineInfo: {{name: {name}}}
root:
  dag: {{tasks: {{}}}}
  inputDefinitions:
    parameters: {{{inputs}}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"""


@pytest.fixture
def shell() -> Shell:
    return Shell()


@pytest.fixture(autouse=True)
def files(home: Path) -> Path:
    (home / "rules").mkdir()
    (home / "packages").mkdir()
    (home / "sources.yaml").write_text(SOURCES)
    (home / "rules" / "income.yaml").write_text(RULES)
    scoring = "uri: {parameterType: STRING}, model_version: {parameterType: NUMBER_INTEGER}"
    (home / "packages" / "scoring@v1.yaml").write_text(PACKAGE.format(name="scoring", inputs=scoring))
    training = "revision: {parameterType: STRING}"
    (home / "packages" / "training@v1.yaml").write_text(PACKAGE.format(name="training", inputs=training))
    return home


def event(**changes: Any) -> str:
    data = {"object": "s3://user-ids/incoming/a.csv", "bucket": "user-ids", "key": "incoming/a.csv", "dir": "incoming"}
    data |= {"name": "a.csv", "stem": "a", "ext": "csv", "size": 12, "etag": "e", "version_id": "", "metadata": {}}
    data |= {"content_type": "text/csv"} | changes.pop("data", {})
    given = {"source": "uploads", "type": "object.created", "subject": data["object"], "time": "2026-11-21T07:00:00Z"}
    return json.dumps(given | {"data": data} | changes)


def body_of(source: str, case: str) -> bytes:
    return (CAPTURED / source / f"{case}.http").read_bytes().partition(b"\r\n\r\n")[2]


def test_right_files_are_0(shell: Shell) -> None:
    assert shell.run("rules", "check").out == "3 rules on 3 sources are right\n"
    found = shell.json("rules", "check")
    assert set(found) == {"ok", "problems", "warnings", "rules", "hash"}
    assert found["rules"] == ["retrain-on-drift", "retrain-on-push", "score"]


def test_wrong_files_are_1_with_place_and_remedy_of_every_problem(shell: Shell, home: Path) -> None:
    wrong = RULES.replace("event.size", "event.sise").replace("source: code", "source: coed")
    (home / "rules" / "income.yaml").write_text(wrong)
    (home / "rules" / "more.yaml").write_text("apiVersion: kfp-triggers/v2\nrules: {}\n")
    said = shell.run("rules", "check", status=1)
    lines = said.err.splitlines()
    assert said.out == ""
    assert len(lines) == 3
    assert lines[0].startswith("rules/income.yaml:7: rules.score.require[0]")
    assert "did you mean" in lines[0] or "sise" in lines[0]
    assert lines[1].startswith("rules/income.yaml:13: rules.retrain-on-push.trigger.source: there is no source `coed`")
    assert lines[2].startswith("rules/more.yaml:1: apiVersion")
    found = shell.json("rules", "check", status=1)
    assert set(found) == {"ok", "problems", "warnings", "rules", "hash"}
    assert [(one["file"], one["line"]) for one in found["problems"]] == [
        ("rules/income.yaml", 7), ("rules/income.yaml", 13), ("rules/more.yaml", 1)
    ]  # fmt: skip


def test_a_warning_is_said_and_is_no_failure(shell: Shell, home: Path) -> None:
    (home / "rules" / "income.yaml").write_text(RULES.replace("-${run.key}", ""))
    assert "warning: rules/income.yaml:" in shell.run("rules", "check").out
    assert shell.json("rules", "check")["warnings"][0]["file"] == "rules/income.yaml"


def test_files_may_be_named_instead_of_those_in_force(shell: Shell, home: Path, tmp_path: Path) -> None:
    changed, sources = tmp_path / "changed.yaml", tmp_path / "sources.yaml"
    changed.write_text(RULES.replace("event.size", "event.sise"))
    said = shell.run("rules", "check", str(changed), status=1).err
    assert said.startswith(f"{changed}:7: ")
    changed.write_text(RULES.replace("uploads", "elsewhere"))
    assert "there is no source `elsewhere`" in shell.run("rules", "check", str(changed), status=1).err
    sources.write_text(SOURCES.replace("uploads", "elsewhere"))
    shell.run("rules", "check", str(changed), "--sources", str(sources))


def test_no_rules_are_right(shell: Shell, home: Path) -> None:
    (home / "rules" / "income.yaml").write_text("apiVersion: kfp-triggers/v1\nrules: {}\n")
    assert shell.run("rules", "check").out == "0 rules on 3 sources are right\n"


def test_a_package_that_is_missing_is_named_with_those_there_are(shell: Shell, home: Path) -> None:
    (home / "packages" / "scoring@v1.yaml").unlink()
    said = shell.run("rules", "check", status=1).err
    assert "no package scoring@v1" in said
    assert "training@v1" in said


@pytest.mark.parametrize(
    "args",
    [["check", "/nowhere.yaml"], ["check", "/"], ["check", "--sources", "/nowhere.yaml"], ["explain", "/nowhere.json"]],
    ids=" ".join,
)
def test_a_file_that_cannot_be_read_is_2(shell: Shell, args: list[str]) -> None:
    assert "cannot read /" in shell.run("rules", *args, status=2).err


def test_a_file_that_is_no_text_is_a_problem_of_it(shell: Shell, home: Path) -> None:
    (home / "rules" / "income.yaml").write_bytes(b"\xff")
    assert "rules/income.yaml:1: is not UTF-8 text" in shell.run("rules", "check", status=1).err
    (found,) = shell.json("rules", "check", status=1)["problems"]
    assert found["file"] == "rules/income.yaml"


def test_foreign_words_in_a_problem_never_move_the_cursor(shell: Shell, home: Path) -> None:
    (home / "rules" / "income.yaml").write_text(RULES.replace("source: code", r'source: "\e[2Jcode"'))
    said = shell.run("rules", "check", status=1).err
    assert "\x1b" not in said
    assert "�[2Jcode" in said


def test_explain_says_what_each_rule_would_do_and_why_not(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(event())
    (found,) = shell.json("rules", "explain", str(file))
    assert (found["type"], found["subject"]) == ("object.created", "s3://user-ids/incoming/a.csv")
    by_name = {entry["rule"]: entry for entry in found["rules"]}
    assert by_name["score"]["outcome"] == "run"
    assert by_name["score"]["params"]["uri"] == "s3://user-ids/incoming/a.csv"
    assert isinstance(by_name["score"]["params"]["model_version"], int)
    assert by_name["retrain-on-push"]["reason"] == "other_source"
    shown = shell.run("rules", "explain", str(file)).out
    assert "score would pass" in shown
    assert "uri            s3://user-ids/incoming/a.csv" in shown
    assert "the rule listens to `code`" in shown


def test_explain_tells_which_requirement_does_not_hold(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(event(data={"size": 0}))
    assert "empty file" in shell.run("rules", "explain", str(file)).out


@pytest.mark.parametrize(
    ("source", "case", "kind", "rule"),
    [
        ("uploads", "minio/put", "object.created", "score"),
        ("code", "github/push-two-commits", "git.push", "retrain-on-push"),
        ("drift", "alertmanager/firing", "alert.firing", "retrain-on-drift"),
    ],
)
def test_explain_reads_a_senders_own_body(
    shell: Shell, tmp_path: Path, source: str, case: str, kind: str, rule: str
) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(body_of(*case.split("/")))
    found = shell.json("rules", "explain", str(file), "--source", source)
    assert {one["type"] for one in found} == {kind}
    matched = [entry["rule"] for entry in found[0]["rules"] if entry["matched"]]
    assert matched == [rule]
    assert shell.run("rules", "explain", str(file), "--source", source).out.startswith(f"{kind} ")


@pytest.mark.parametrize(
    ("content", "args", "says"),
    [
        ("", [], "not JSON"),
        ("[" * 100_000, [], "not JSON"),
        ("[]", [], "an event is a JSON object"),
        ("{}", [], "an event needs `type`"),
        (event(source=5), [], "an event needs `source`"),
        (event(time="yesterday"), [], "`time` must look like"),
        (event(), ["--source", "nobody"], "there is no source `nobody`; there is code, drift, uploads"),
        ("not JSON", ["--source", "uploads"], "the body is not JSON"),
        ('{"Records": [1]}', ["--source", "uploads"], "no event in it that rules may match"),
    ],
)
def test_what_is_no_event_is_said_to_be_none(
    shell: Shell, tmp_path: Path, content: str, args: list[str], says: str
) -> None:
    file = tmp_path / "event.json"
    file.write_text(content)
    said = shell.run("rules", "explain", str(file), *args, status=2)
    assert says in said.err
    assert said.out == ""


def test_explain_shows_a_foreign_key_as_text(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    key = "incoming/\x1b[31m\x9b2J\u202e[bold]x.csv"
    file.write_text(event(subject=f"s3://user-ids/{key}", data={"key": key, "object": f"s3://user-ids/{key}"}))
    for shown in (shell.run("rules", "explain", str(file)).out, shell.run("rules", "explain", str(file), "--json").out):
        assert not set(shown) & {"\x1b", "\x9b", "\u202e"}
        assert "[bold]x.csv" in shown
    assert shell.json("rules", "explain", str(file))[0]["subject"] == f"s3://user-ids/{key}"


def test_explain_needs_no_store_and_makes_none(shell: Shell, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(event())
    shell.run("rules", "explain", str(file))
    assert not (home / "data").exists()


def test_the_schema_is_the_one_that_is_shipped(shell: Shell) -> None:
    shipped = Path(grammar.__file__).with_name("schema.json").read_text()
    assert shell.run("rules", "schema").document == json.loads(shipped)
