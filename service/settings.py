"""Every setting, nested by what it is for, read once: environment over `settings.toml` over the defaults here.

`KFP_TRIGGERS_STORE__URL=…` is `url` under `[store]`; a secret has a twin that names a file,
`KFP_TRIGGERS_API__TOKEN_FILE`. `load` is called by the CLI alone; everything else is handed what it needs.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from service.environment import PREFIX, near, refuse_unknown, variables
from service.errors import Refused
from triggers.quantities import duration


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ApiSettings(_Group):
    """The HTTP door."""

    host: str = Field("127.0.0.1", description="address to listen on; behind a proxy or in a pod 0.0.0.0")
    port: int = Field(8080, ge=0, le=65535)
    token: SecretStr | None = Field(None, description="bearer token of the read API; without one it answers 401 to all")
    body_timeout: float = Field(10.0, gt=0, description="seconds in which a whole body must have arrived")
    queue: int = Field(
        1000, gt=0, description="deliveries that may wait for the store, of one source half as many; more are told 503"
    )


class StoreSettings(_Group):
    """The database, which is the truth."""

    url: str = Field("", description="SQLAlchemy URL; empty: SQLite in data/ under the home")
    journal: Literal["wal", "delete"] = Field("wal", description="SQLite's journal; `delete` is slower, safe anywhere")
    busy_timeout: float = Field(10.0, gt=0, description="seconds to wait for another process's write")


class BrokerSettings(_Group):
    """Redis, the doorbell. Losing it loses time, never work."""

    url: SecretStr | None = Field(None, description="redis://…; none: the work is done in the process that accepted it")
    queue: str = Field("kfp-triggers", description="name of the Celery queue")
    concurrency: int = Field(4, gt=0, description="threads of a worker")


class LocalSettings(_Group):
    """The local backend: one subprocess per run."""

    packages: Path = Field(Path("packages"), description="compiled pipelines, `<name>@<version>.yaml`")
    max_parallel: int = Field(2, gt=0, description="runs at a time")
    leash: Path | None = Field(None, description="FIFO whose writer is the supervisor: runs end when it does")
    env: tuple[str, ...] = Field(
        (
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "AWS_*",
            "FEAST_*",
            "MLFLOW_*",
            "SSL_CERT_*",
            "REQUESTS_CA_BUNDLE",
        ),
        description="names of environment variables that a run sees; `*` at the end stands for any rest",
    )


class BackendSettings(_Group):
    """A Kubeflow Pipelines API server that runs are sent to, under a name that rules use (`[backends.NAME]`)."""

    endpoint: str = Field(
        description="http(s)://host:port of the API server, or the path of a gateway that leads to it"
    )
    namespace: str = Field("", description="of the profile, on a multi-user Kubeflow; empty on a single-user one")
    ui: str = Field("", description="address of the KFP UI, for links; empty: the endpoint")
    token: SecretStr | None = Field(None, description="bearer token")
    token_file: Path | None = Field(None, description="file with the bearer token; read again when it changes")
    service_account: bool = Field(False, description="in a cluster: the projected service account token of the pod")
    cookies: SecretStr | None = Field(None, description="Cookie header, as of a Dex login")
    cookies_file: Path | None = Field(None, description="file with it; read again when it changes")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    verify_tls: bool = True
    timeout: float = Field(20.0, gt=0, description="seconds that one call may take; less than the lease")
    settle: float | None = Field(
        None, ge=0, description="seconds, at least the lease and twice timeout; none: pace.settle"
    )
    rate: float = Field(5.0, ge=0, description="runs made per second, by all workers together; 0: unlimited")
    burst: int = Field(10, gt=0, description="runs that may be made at once after a quiet time")
    polls: int = Field(60, gt=0, description="calls per minute that watching may cost")
    experiment: str = Field("Default", description="of runs whose rule names none; made when absent")
    caching: bool | None = Field(None, description="none: as the pipeline was compiled")
    run_as: str = Field("", description="Kubernetes service account of the pods of a run; empty: KFP's default")
    pipeline_root: str = Field("", description="where artifacts go; empty: KFP's default")
    time_limit: float = Field(86_400.0, gt=0, description="seconds; of a run whose rule has none")


class ObjectSettings(_Group):
    """The S3 store that events tell of and reports go to."""

    endpoint: str = Field("", description="http(s)://host:port; empty: AWS_ENDPOINT_URL")
    access_key: SecretStr | None = Field(None, description="none: AWS_ACCESS_KEY_ID")
    secret_key: SecretStr | None = Field(None, description="none: AWS_SECRET_ACCESS_KEY")
    region: str = "us-east-1"
    bucket: str = Field("kfp-triggers", description="our own: reports and manifests; its objects are never events")


class MlflowSettings(_Group):
    """The model registry."""

    tracking_uri: str = Field("", description="http(s)://…; empty: MLFLOW_TRACKING_URI")


class PaceSettings(_Group):
    """How patient the service is, in seconds. Test suites run it scaled down."""

    lease: float = Field(30.0, gt=0, description="how long a claim on a row holds")
    sweep: float = Field(5.0, gt=0, description="how often is looked for what fell between")
    takeover: float = Field(10.0, ge=0, description="how long due work waits for a worker before the sweep does it")
    settle: float = Field(
        180.0, ge=0, description="after an unclear submission: longer than the server's longest request"
    )
    watch: float = Field(2.0, gt=0, description="how often open runs are looked at")
    reload: float = Field(1.0, ge=0, description="how often the rule files are looked at")
    notice: float = Field(
        10.0, ge=0, description="how old an object is when a scan takes it: its notification is first"
    )


def _duration(given: Any) -> Any:
    return duration(given) if isinstance(given, str) else given


Age = Annotated[
    timedelta, BeforeValidator(_duration), PlainSerializer(lambda age: f"{age // timedelta(days=1)}d", when_used="json")
]
DAY = timedelta(days=1)


class RetentionSettings(_Group):
    """How long what arrived is kept. Nothing goes that is unfinished, or that something younger came of."""

    bodies: Age = Field(14 * DAY, ge=DAY, description="raw bodies of deliveries; their size and hash stay")
    events: Age = Field(90 * DAY, ge=7 * DAY, description="deliveries, events, decisions, runs and their lineage")
    keys: Age = Field(180 * DAY, ge=7 * DAY, description="hashes by which a late redelivery is known as one")
    batch: int = Field(200, ge=1, le=500, description="rows in one transaction; one of each kind in each sweep")


class LogSettings(_Group):
    """What the processes say."""

    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json")
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Environment(EnvSettingsSource):
    """The environment over `data/up.env`, which a running `kfp-triggers up` leaves for other commands on its home.

    `KFP_TRIGGERS_…_FILE=path` stands for the variable without `_FILE`: the file's text without the newline at its end.
    """

    def __init__(self, settings_cls: type[BaseSettings], home: Path) -> None:
        self._home = home
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = variables(self._home)
        refuse_unknown(found, list(_variables()), _plainly)
        return {name.lower(): text for name, text in found.items()}


def _plainly(name: str) -> str:
    """A backend's variable with NAME for the backend's own."""
    return re.sub(f"^{PREFIX}BACKENDS__(?:(?!__).)+__", f"{PREFIX}BACKENDS__NAME__", name)


def _variables() -> Iterator[str]:
    yield from (f"{PREFIX}BACKENDS__NAME__{name.upper()}" for name in BackendSettings.model_fields)
    for name, field in Settings.model_fields.items():
        yield f"{PREFIX}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Group):
            yield from (f"{PREFIX}{name.upper()}__{inner.upper()}" for inner in field.annotation.model_fields)


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(Path(), description="where settings.toml, sources.yaml, rules/, packages/ and data/ lie")
    api: ApiSettings = ApiSettings()
    store: StoreSettings = StoreSettings()
    broker: BrokerSettings = BrokerSettings()
    local: LocalSettings = LocalSettings()
    backends: dict[str, BackendSettings] = Field(
        {}, description="Kubeflow Pipelines by name; `local` is always there, and `default` is it unless named here"
    )
    objects: ObjectSettings = ObjectSettings()
    mlflow: MlflowSettings = MlflowSettings()
    pace: PaceSettings = PaceSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    secret_params: dict[str, tuple[str, ...]] = Field(
        {},
        description="which pipelines a rule may hand which secrets to as parameters: a pipeline's name to a list of "
        "`env:NAME` and `file:PATH`; `*` at the end stands for any rest",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings calls it with all five
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(init_settings()["home"])
        toml = TomlConfigSettingsSource(settings_cls, home / "settings.toml")
        return init_settings, _Environment(settings_cls, home), toml

    @property
    def data(self) -> Path:
        """The folder that the service writes to."""
        return self.home / "data"


def load(home: Path | None = None) -> Settings:
    """The settings in force, paths absolute; Refused with every problem named."""
    found = (home or Path(os.environ.get(f"{PREFIX}HOME") or ".")).absolute()
    try:
        settings = Settings(home=found)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(step) for step in item['loc'])}: {_said(item)}" for item in error.errors()]
        raise Refused("settings that cannot be used:\n" + "\n".join(lines)) from error
    except SettingsError as error:
        raise Refused(f"settings that cannot be used: {error}; there it must be JSON") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{found / 'settings.toml'} is not TOML: {error}") from error
    except OSError as error:
        raise Refused(f"cannot read {error.filename}: {error.strerror}") from error
    store = settings.store.model_copy(
        update={"url": settings.store.url or f"sqlite:///{settings.data / 'kfp-triggers.db'}"}
    )
    local = settings.local.model_copy(update={"packages": found / settings.local.packages})
    objects = settings.objects.model_copy(update=_aws(settings.objects, os.environ))
    _check_addresses(store, objects)
    _check_secret_params(settings.secret_params)
    _check_retention(settings.retention)
    backends = {name: _backend(found, name, one, settings.pace) for name, one in settings.backends.items()}
    tracking = settings.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    mlflow = settings.mlflow.model_copy(update={"tracking_uri": tracking})
    changed = {"store": store, "local": local, "objects": objects, "mlflow": mlflow, "backends": backends}
    return settings.model_copy(update=changed)


def _said(item: Any) -> str:
    """A finding in a person's words; pydantic's own never hold the value."""
    if item["type"] != "extra_forbidden":
        return str(item["msg"])
    kind: Any = Settings
    for step in item["loc"][:-1]:
        kind = BackendSettings if kind == dict[str, BackendSettings] else kind.model_fields[step].annotation
    return f"there is no such setting{near(str(item['loc'][-1]), list(kind.model_fields))}"


def _backend(home: Path, name: str, given: BackendSettings, pace: PaceSettings) -> BackendSettings:
    """With its files' paths absolute; Refused with what would not work."""
    parts = urlsplit(given.endpoint)
    settle = pace.settle if given.settle is None else given.settle
    problem = ""
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        problem = "endpoint: must look like http://host:8888 or https://host/pipeline"
    elif parts.username or parts.password:
        problem = "endpoint: holds a password; give a token or cookies"
    elif "@" in urlsplit(given.ui).netloc:
        problem = "ui: holds a password, and links to it are shown to others"
    elif not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
        problem = "is no name for a backend: lower-case letters, digits, - and _"
    elif sum(map(bool, (given.token, given.token_file, given.service_account))) > 1:
        problem = "give one of token, token_file and service_account"
    elif given.timeout >= pace.lease:
        problem = "timeout: must be less than pace.lease, or an answer comes after another may have asked"
    elif settle < pace.lease + 2 * given.timeout:
        problem = "settle: must be at least pace.lease and twice the timeout, the longest that a submission may take"
    if problem:
        raise Refused(f"settings that cannot be used:\n  backends.{name}.{problem}")
    files = {
        key: home / path
        for key in ("token_file", "cookies_file", "ca_file")
        if (path := getattr(given, key)) is not None
    }
    return given.model_copy(update=files | {"settle": settle, "endpoint": given.endpoint.rstrip("/")})


def _check_addresses(store: StoreSettings, objects: ObjectSettings) -> None:
    """The client libraries say it late and in words of theirs. Never the value: it may hold a password."""
    scheme, there, _ = store.url.partition("://")
    if not there or scheme.partition("+")[0] not in {"sqlite", "postgresql"}:
        raise Refused("settings that cannot be used:\n  store.url: must begin with sqlite:/// or postgresql://")
    parts = urlsplit(objects.endpoint)
    usable = parts.scheme in {"http", "https"} and parts.netloc and not parts.path.strip("/") and not parts.query
    usable = usable and "@" not in parts.netloc
    if objects.endpoint and not usable:
        raise Refused("settings that cannot be used:\n  objects.endpoint: must look like http://host:9000")


def _check_retention(given: RetentionSettings) -> None:
    """A body without its event, or an event whose key is gone before it, would be of no use."""
    if not given.bodies <= given.events <= given.keys:
        raise Refused("settings that cannot be used:\n  retention: must be bodies <= events <= keys")


def _check_secret_params(given: Mapping[str, tuple[str, ...]]) -> None:
    """A pattern that is open to everything is a mistake, or will be one."""
    for pipeline, references in given.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\*?", pipeline):
            raise Refused(f"settings that cannot be used:\n  secret_params.{pipeline}: is no pipeline's name")
        for one in references:
            if not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*\*?|file:[^*]+\*?", one) or ".." in one.split("/"):
                how = "must look like env:NAME, env:LEGACY_*, file:PATH or file:/run/secrets/legacy/*"
                raise Refused(f"settings that cannot be used:\n  secret_params.{pipeline}: {how}")


def _aws(objects: ObjectSettings, environ: Mapping[str, str]) -> dict[str, Any]:
    """What is not set is taken from the names that every S3 tool reads."""
    found: dict[str, Any] = {}
    if not objects.endpoint and environ.get("AWS_ENDPOINT_URL"):
        found["endpoint"] = environ["AWS_ENDPOINT_URL"]
    for field, name in (("access_key", "AWS_ACCESS_KEY_ID"), ("secret_key", "AWS_SECRET_ACCESS_KEY")):
        if getattr(objects, field) is None and environ.get(name):
            found[field] = SecretStr(environ[name])
    return found
