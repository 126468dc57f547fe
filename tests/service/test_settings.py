"""Settings: environment over `up.env` over `settings.toml` over the defaults, and what is said of a mistake."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from service.cli import app
from service.errors import Refused
from service.settings import Settings, load

Say = Callable[[str], None]
SECRETS = [
    f"KFP_TRIGGERS_{group.upper()}__{name.upper()}"
    for group, field in Settings.model_fields.items()
    if hasattr(field.annotation, "model_fields")
    for name, inner in field.annotation.model_fields.items()  # type: ignore[union-attr]
    if "SecretStr" in str(inner.annotation)
]


@pytest.fixture
def toml(home: Path) -> Say:
    return lambda text: (home / "settings.toml").write_text(text) and None


@pytest.fixture
def up_env(home: Path) -> Say:
    (home / "data").mkdir()
    return lambda text: (home / "data" / "up.env").write_text(text) and None


def refusal() -> str:
    with pytest.raises(Refused) as caught:
        load()
    return str(caught.value)


def test_nothing_set_is_the_defaults_with_every_path_in_the_home(home: Path) -> None:
    found = load()
    assert found.store.url == f"sqlite:///{home}/data/kfp-triggers.db"
    assert found.local.packages == home / "packages"
    assert (found.api.host, found.api.port, found.api.token) == ("127.0.0.1", 8080, None)
    assert found.broker.url is None


def test_the_home_is_the_argument_or_the_variable_or_the_working_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(tmp_path).home == tmp_path
    assert load().home == home
    monkeypatch.setenv("KFP_TRIGGERS_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert load().home == tmp_path
    monkeypatch.setenv("KFP_TRIGGERS_HOME", "home")
    assert load().home == home


def test_each_layer_is_over_the_one_below(toml: Say, up_env: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    toml('[api]\nport = 1\nqueue = 1\nbody_timeout = 1.0\n[mlflow]\ntracking_uri = "toml"\n')
    up_env("KFP_TRIGGERS_API__PORT=2\nKFP_TRIGGERS_API__QUEUE=2\nKFP_TRIGGERS_HOME=/elsewhere\nAWS_REGION=x\n")
    monkeypatch.setenv("KFP_TRIGGERS_API__PORT", "3")
    found = load()
    assert (found.api.port, found.api.queue, found.api.body_timeout) == (3, 2, 1.0)
    assert found.mlflow.tracking_uri == "toml"
    assert found.home != Path("/elsewhere")


def test_a_value_in_up_env_may_hold_anything_quoted_as_for_a_shell(up_env: Say) -> None:
    value = "=a=b#c 'd'\n$(e)"
    up_env(f"KFP_TRIGGERS_API__TOKEN={shlex.quote(value)}\n")
    token = load().api.token
    assert token is not None
    assert token.get_secret_value() == value


def test_there_are_secrets_to_test() -> None:
    assert "KFP_TRIGGERS_API__TOKEN" in SECRETS
    assert len(SECRETS) == 4


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_lie_in_a_file(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (home / "secret").write_text("redis://the secret \n")
    monkeypatch.setenv(f"{name}_FILE", str(home / "secret"))
    group, _, field = name.removeprefix("KFP_TRIGGERS_").lower().partition("__")
    found = getattr(getattr(load(), group), field)
    assert isinstance(found, SecretStr)
    assert found.get_secret_value() == "redis://the secret "


def test_a_file_in_the_environment_is_over_a_value_in_up_env(
    home: Path, up_env: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_env("KFP_TRIGGERS_API__TOKEN=from-up\n")
    (home / "secret").write_text("from-file")
    monkeypatch.setenv("KFP_TRIGGERS_API__TOKEN_FILE", str(home / "secret"))
    token = load().api.token
    assert token is not None
    assert token.get_secret_value() == "from-file"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"API__TOKEN_FILE": "/nowhere"}, "KFP_TRIGGERS_API__TOKEN_FILE: cannot read /nowhere: No such file"),
        ({"API__TOKEN_FILE": "/"}, "cannot read /: Is a directory"),
        ({"API__TOKEN_FILE": os.devnull, "API__TOKEN": "x"}, "leave one out"),
        ({"STOR__URL": "x"}, "KFP_TRIGGERS_STOR__URL: there is no such setting; did you mean KFP_TRIGGERS_STORE__URL?"),
        ({"STORE_URL": "x"}, "did you mean KFP_TRIGGERS_STORE__URL?"),
        ({"API__TOKN_FILE": os.devnull}, "did you mean KFP_TRIGGERS_API__TOKEN?"),
        ({"API__PORT__X": "1"}, "KFP_TRIGGERS_API__PORT__X: there is no such setting"),
        ({"ANYTHING": "1"}, "KFP_TRIGGERS_ANYTHING: there is no such setting"),
        ({"API__PORT": "many"}, "api.port: Input should be a valid integer"),
        ({"API__PORT": "65536"}, "api.port: Input should be less than or equal to 65535"),
        ({"PACE__LEASE": "0"}, "pace.lease: Input should be greater than 0"),
        ({"LOG__FORMAT": "xml"}, "log.format: Input should be 'auto', 'console' or 'json'"),
        ({"LOCAL__ENV": "PATH"}, "must be JSON"),
        ({"API": "x"}, "must be JSON"),
        ({"OBJECTS__ENDPOINT": "minio:9000"}, "objects.endpoint: must look like http://host:9000"),
        ({"OBJECTS__ENDPOINT": "http://minio:9000/path"}, "objects.endpoint"),
        ({"STORE__URL": "store.db"}, "store.url: must begin with sqlite:/// or postgresql://"),
        ({"STORE__URL": "mysql://host/db"}, "store.url"),
    ],
    ids=str,
)
def test_a_mistake_in_the_environment_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], says: str
) -> None:
    for name, text in environ.items():
        monkeypatch.setenv(f"KFP_TRIGGERS_{name}", text)
    assert says in refusal()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[api", "settings.toml is not TOML: "),
        ("[api]\nport = 'x'\n", "api.port: "),
        ("[api]\nprot = 5\n", "api.prot: there is no such setting; did you mean port?"),
        ("[apis]\nport = 5\n", "apis: there is no such setting; did you mean api?"),
        ("port = 5\n", "port: there is no such setting"),
        ("api = 5\n", "api: "),
        ("[local]\nenv = 'PATH'\n", "local.env: "),
        ("[store]\nurl = 'nonsense'\n", "store.url: "),
    ],
)
def test_a_mistake_in_the_file_is_named(toml: Say, text: str, says: str) -> None:
    toml(text)
    assert says in refusal()


def test_a_file_that_is_no_text_is_named(home: Path) -> None:
    (home / "settings.toml").write_bytes(b"\xff\xfe")
    assert "settings.toml is not TOML" in refusal()
    (home / "settings.toml").unlink()
    (home / "token").write_bytes(b"\xff")
    os.environ["KFP_TRIGGERS_API__TOKEN_FILE"] = str(home / "token")
    try:
        assert "is not UTF-8 text" in refusal()
    finally:
        del os.environ["KFP_TRIGGERS_API__TOKEN_FILE"]


def test_everything_wrong_is_said_at_once(home: Path, toml: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    toml("[api]\nport = 'x'\nqueue = 0\n")
    assert "api.port" in refusal()
    assert "api.queue" in refusal()
    monkeypatch.setenv("KFP_TRIGGERS_A", "1")
    monkeypatch.setenv("KFP_TRIGGERS_B", "1")
    assert "KFP_TRIGGERS_A" in refusal()
    assert "KFP_TRIGGERS_B" in refusal()


def test_a_refusal_never_repeats_a_value(toml: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    toml("[api]\nport = 'canary'\nprot = 'canary'\n")
    monkeypatch.setenv("KFP_TRIGGERS_OBJECTS__ENDPOINT", "canary")
    monkeypatch.setenv("KFP_TRIGGERS_PACE__LEASE", "canary")
    assert "canary" not in refusal()
    toml("")
    monkeypatch.delenv("KFP_TRIGGERS_PACE__LEASE")
    assert "canary" not in refusal()


@pytest.mark.parametrize(
    "name", ["KFP_TRIGGERS_PARTS__MINIO", "KFP_TRIGGERS_HOOK_SECRET_FILE", "KFP_TRIGGERS_HOOK_URL"]
)
def test_what_belongs_to_other_programs_of_ours_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/nowhere")
    load()


def test_the_names_that_every_s3_tool_reads_fill_the_gaps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://aws:9000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("KFP_TRIGGERS_OBJECTS__ACCESS_KEY", "ours")
    found = load()
    assert found.objects.endpoint == "http://aws:9000"
    assert found.objects.access_key is not None
    assert found.objects.access_key.get_secret_value() == "ours"
    assert found.mlflow.tracking_uri == "http://mlflow"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("API__TOKEN", "canary", "**********"),
        ("BROKER__URL", "redis://:canary@host/0", "**********"),
        ("OBJECTS__SECRET_KEY", "canary", "**********"),
        ("STORE__URL", "postgresql://user:canary@host/db", "postgresql://***@host/db"),
        ("STORE__URL", "postgresql://user:can@ry/canary@host/db", "postgresql://***@host/db"),
        (
            "STORE__URL",
            "postgresql://host/db?user=u&password=canary&x=y",
            "postgresql://host/db?user=u&password=***&x=y",
        ),
        ("STORE__URL", "sqlite:////folder@home/store.db", "sqlite:////folder@home/store.db"),
        ("MLFLOW__TRACKING_URI", "http://user:canary@host", "http://***@host"),
    ],
)
def test_what_is_shown_holds_no_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: str
) -> None:
    monkeypatch.setenv(f"KFP_TRIGGERS_{name}", value)
    group, _, field = name.lower().partition("__")
    for_a_machine = CliRunner().invoke(app, ["settings", "--json"])
    for_a_person = CliRunner().invoke(app, ["settings"])
    assert (for_a_machine.exit_code, for_a_person.exit_code) == (0, 0)
    assert json.loads(for_a_machine.stdout)[group][field] == shown
    assert shown in for_a_person.stdout
    assert "canary" not in for_a_machine.output + for_a_person.output
    assert "canary" not in repr(load().api) + repr(load().broker) + repr(load().objects)


def test_every_setting_that_needs_one_has_an_explanation() -> None:
    obvious = {"port", "region", "level"}
    without = [
        f"{group}.{name}"
        for group, field in Settings.model_fields.items()
        for name, inner in getattr(field.annotation, "model_fields", {}).items()
        if not inner.description and name not in obvious
    ]
    assert without == []


def test_settings_cannot_be_changed_while_they_hold(home: Path) -> None:
    found: Any = load()
    with pytest.raises(ValueError, match="frozen"):
        found.api.port = 1
