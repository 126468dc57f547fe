"""`sources.yaml` is read strictly, and complains of everything at once."""

import pytest

from triggers.secretref import SecretReference
from triggers.sourcefile import NOT_BUILT, load_sources
from triggers.sources import SOURCES
from triggers.yamlfile import Problems

GOOD = """\
apiVersion: kfp-triggers/v1
sources:
  uploads:    {type: minio, token: {env: UPLOADS_TOKEN}, buckets: [user-ids]}
  model-repo: {type: gitlab, secrets: [{file: /run/secrets/new}, {env: OLD}], repositories: [acme/income-model]}
  plain:
    type: git
    token: {file: git.secret}
    repositories: {acme/income-model: {url: "ssh://git@git.example/srv/income.git"}}
  code:       {type: github, token: {env: GITHUB}, repositories: [acme/a, acme/b], base_url: "https://github.example"}
  drift:      {type: alertmanager, auth: none}
  people:     {type: manual, token: {env: PEOPLE}}
"""


def _source(text: str) -> str:
    return f"apiVersion: kfp-triggers/v1\nsources:\n  one:\n    {text}\n"


def _problems(text: str) -> list[str]:
    with pytest.raises(Problems) as found:
        load_sources(text, "sources.yaml")
    return [str(problem) for problem in found.value.problems]


def test_a_good_file_gives_every_source_with_its_secrets_unresolved() -> None:
    sources = load_sources(GOOD, "sources.yaml")
    assert {name: source.type for name, source in sources.items()} == {
        "uploads": "minio",
        "model-repo": "gitlab",
        "plain": "git",
        "code": "github",
        "drift": "alertmanager",
        "people": "manual",
    }
    assert sources["uploads"].secrets == (SecretReference(env="UPLOADS_TOKEN"),)
    assert sources["model-repo"].secrets == (SecretReference(file="/run/secrets/new"), SecretReference(env="OLD"))
    assert sources["drift"].secrets == ()


MINIO = "type: minio\n    buckets: [b]\n    "
GIT = "type: git\n    token: {env: T}\n    repositories: "
PACKAGES = GIT + "{a: {url: 'https://h/a', packages: {%s}}}"
OF_A = "sources.yaml:6: sources.one.repositories.a"
BAD = {
    "": "sources.yaml:1: must be a mapping with `apiVersion: kfp-triggers/v1` and `sources:`",
    "apiVersion: kfp-triggers/v1\n": "sources.yaml:1: sources: must be a mapping of a name to a source",
    "sources: {}\n": "sources.yaml:1: apiVersion: must be `kfp-triggers/v1`",
    "apiVersion: v2\nsources: {}\n": "sources.yaml:1: apiVersion: must be `kfp-triggers/v1`",
    "apiVersion: kfp-triggers/v1\nsources: {}\nrules: {}\n": "sources.yaml:3: rules: unknown key; there are apiVersion "
    "and sources",
    "apiVersion: kfp-triggers/v1\nsources: [a]\n": "sources.yaml:2: sources: must be a mapping of a name to a source",
    "apiVersion: kfp-triggers/v1\nsources:\n  Big: {type: alertmanager, auth: none}\n": "sources.yaml:3: sources.Big: "
    "a name is lower-case letters, digits and -, at most 63 of them",
    "apiVersion: kfp-triggers/v1\nsources:\n  a: x\n": "sources.yaml:3: sources.a: must be a mapping "
    "with at least `type:`",
    _source("type: kafka\n    auth: none"): f"sources.yaml:4: sources.one.type: must be one of {', '.join(SOURCES)}",
    _source("auth: none"): f"sources.yaml:3: sources.one.type: must be one of {', '.join(SOURCES)}",
    _source(MINIO + "bucket: c\n    auth: none"): "sources.yaml:6: sources.one.bucket: unknown key; a minio source has "
    "type, token, secrets, redact, buckets, scan, auth",
    _source("type: minio\n    auth: none"): "sources.yaml:3: sources.one.buckets: is required",
    _source(
        MINIO + "auth: none\n    scan: on"
    ): "sources.yaml:7: sources.one.scan: must be `off`, or a mapping such as {every: 5m}",
    _source(
        MINIO + "auth: none\n    scan: {every: 5}"
    ): "sources.yaml:7: sources.one.scan.every: must be a time such as `5m`",
    _source(MINIO + "auth: none\n    scan: {every: 0s}"): "sources.yaml:7: sources.one.scan.every: must be more than "
    "nothing and at most a year",
    _source(MINIO + "auth: none\n    scan: {often: 5m}"): "sources.yaml:7: sources.one.scan.often: unknown key",
    _source(
        "type: minio\n    auth: none\n    buckets: []"
    ): "sources.yaml:6: sources.one.buckets: must hold at least one",
    _source("type: minio\n    auth: none\n    buckets: [1]"): "sources.yaml:6: sources.one.buckets[0]: must be a valid "
    "string",
    _source("type: minio\n    buckets: [b]"): "sources.yaml:3: sources.one: has no credential: `token:` or a list "
    "`secrets:` (write {env: NAME} or {file: PATH}); to go without one, say `auth: none`",
    _source(MINIO + "auth: off"): "sources.yaml:6: sources.one.auth: can only be `none`; leave it out where there is a "
    "token",
    _source(
        MINIO + "auth: none\n    token: {env: T}"
    ): "sources.yaml:6: sources.one.auth: there is a credential: leave out either",
    _source(MINIO + "token: {env: T}\n    secrets: [{env: T}]"): "sources.yaml:6: sources.one.token: give `token:` or "
    "`secrets:`, not both",
    _source(MINIO + "token: canary"): "sources.yaml:6: sources.one.token: a secret is never written into this file: "
    "write {env: NAME} or {file: PATH}",
    _source(MINIO + "secrets: [{env: A}, canary]"): "sources.yaml:6: sources.one.secrets[1]: a secret is never written "
    "into this file: write {env: NAME} or {file: PATH}",
    _source(
        MINIO + "secrets: {env: A}"
    ): "sources.yaml:6: sources.one.secrets: must be a list; in it write {env: NAME} or {file: PATH}",
    _source(MINIO + "secrets: []"): "sources.yaml:6: sources.one.secrets: must be a list; in it write {env: NAME} or "
    "{file: PATH}",
    _source(MINIO + "token: {env: A, file: b}"): "sources.yaml:6: sources.one.token: write {env: NAME} or {file: PATH}",
    _source(MINIO + "token: {value: canary}"): "sources.yaml:6: sources.one.token: write {env: NAME} or {file: PATH}",
    _source(MINIO + "token: {env: 7}"): "sources.yaml:6: sources.one.token: `env:` must be a text that is not empty",
    _source(MINIO + "token: {env: can-ary!}"): "sources.yaml:6: sources.one.token: `env:` must be the name of an "
    "environment variable, not its value",
    _source(GIT + "[]"): "sources.yaml:6: sources.one.repositories: must hold at least one",
    _source(GIT + "acme/a"): "sources.yaml:6: sources.one.repositories: must be a list of names such as "
    "acme/income-model, or a mapping of name to {url: …}",
    _source(GIT + "[a, a]"): "sources.yaml:6: sources.one.repositories: a repository stands here twice",
    _source(
        GIT + '["a\\n"]'
    ): "sources.yaml:6: sources.one.repositories: 1 of the names are not like acme/income-model",
    _source(GIT + "{acme/a: {url: canary}}"): "sources.yaml:6: sources.one.repositories.acme/a.url: must be a clone "
    "URL: https://…, ssh://…, git@host:path or file://…",
    _source(GIT + "{acme/a: {url: 'https://u:canary@h/x'}}"): "sources.yaml:6: sources.one.repositories.acme/a.url: "
    "holds a user or a password: pipelines get their credentials elsewhere, an URL is no secret",
    _source(GIT + "{acme/a: {url: 'https://canary@h/x'}}"): "sources.yaml:6: sources.one.repositories.acme/a.url: "
    "holds a user or a password: pipelines get their credentials elsewhere, an URL is no secret",
    _source(GIT + "{acme/a: {uri: x}}"): "sources.yaml:6: sources.one.repositories.acme/a.uri: unknown key",
    _source(PACKAGES % "service_account: t"): f"{OF_A}.packages.branches: is required",
    _source(PACKAGES % "branches: [main]"): f"{OF_A}.packages.service_account: is required",
    _source(PACKAGES % "branches: [], service_account: t"): f"{OF_A}.packages.branches: must hold at least one",
    _source(PACKAGES % "branches: main, service_account: t"): f"{OF_A}.packages.branches: must be a valid list",
    _source(PACKAGES % "branches: ['*x'], service_account: t"): f"{OF_A}.packages.branches[0]: must be a branch's "
    "name, or the beginning of one with * at its end: main, release/*",
    _source(PACKAGES % "branches: [a], service_account: A b"): f"{OF_A}.packages.service_account: must be the name of "
    "a Kubernetes service account, such as income-trainer",
    _source(PACKAGES % "branches: [a], service_account: t, branch: b"): f"{OF_A}.packages.branch: unknown key",
    _source(PACKAGES % "branches: [a], service_account: t, token: canary"): f"{OF_A}.packages.token: a secret is never "
    "written into this file: write {env: NAME} or {file: PATH}",
    _source(PACKAGES % "branches: [a], service_account: t, token: {value: canary}"): f"{OF_A}.packages.token: write "
    "{env: NAME} or {file: PATH}",
    _source(GIT + "{a: {url: 'ssh://h/a', packages: {branches: [a], service_account: t, token: {env: T}}}}"): OF_A
    + ": packages.token: is only for https:// and http://; leave it out",
    _source(GIT + "{a: {packages: {branches: [a], service_account: t}}}"): "sources.yaml:6: sources.one.repositories: "
    "a: `packages` needs a `url` to take them from",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_line_and_remedy(text: str) -> None:
    problems = _problems(text)
    assert BAD[text] in problems
    assert "canary" not in "".join(problems)


@pytest.mark.parametrize("kind", ["git", "github", "gitlab"])
def test_a_repository_says_whose_branches_may_bring_packages_along(kind: str) -> None:
    rules = "{branches: [main, release/*], service_account: trainer, token: {file: secrets/git}}"
    text = f"type: {kind}\n    token: {{env: T}}\n    repositories: {{a: {{url: 'https://h/a', packages: {rules}}}}}"
    config = load_sources(_source(text), "sources.yaml")["one"].config
    allowed = config.repositories["a"].packages  # type: ignore[attr-defined]  # each of these has them
    assert (allowed.branches, allowed.service_account) == (["main", "release/*"], "trainer")
    assert allowed.token == SecretReference(file="secrets/git")


@pytest.mark.parametrize(
    ("pattern", "good"),
    [("main", True), ("release/*", True), ("v*", True), ("*", True), ("fix_1.x", True), ("", False), ("a/*/b", False),
     ("-x", False), ("a..b", False), ("a b", False), ("refs?", False), ("a:b", False), ("a//b", False)],
)  # fmt: skip
def test_a_branch_is_a_name_or_the_beginning_of_one(pattern: str, good: bool) -> None:
    found = _source(PACKAGES % f"branches: ['{pattern}'], service_account: t")
    assert good or "packages.branches[0]" in "".join(_problems(found))
    assert not good or load_sources(found, "sources.yaml")


@pytest.mark.parametrize("word", sorted(NOT_BUILT))
def test_a_type_that_is_designed_but_not_built_is_said_to_be(word: str) -> None:
    assert word not in SOURCES
    assert f"the type `{word}` is not built yet" in "".join(_problems(_source(f"type: {word}\n    auth: none")))


def test_all_problems_of_a_file_are_told_at_once() -> None:
    text = """\
apiVersion: kfp-triggers/v1
sources:
  a: {type: minio, token: {env: T}}
  B: {type: github, token: secret, repositories: [x/y]}
  c: {type: gitea, token: {env: T}}
"""
    assert [line.split(": ")[1] for line in _problems(text)] == [
        "sources.a.buckets",
        "sources.B",
        "sources.B.token",
        "sources.c.type",
    ]


def test_a_duplicate_name_is_refused() -> None:
    assert "stands here twice" in "".join(_problems(_source("auth: none\n  one:\n    auth: none")))
