"""The MLflow registry: which version stands behind an alias, which versions carry a run key; moves an alias.

Fits `service.ports.Registry`. Imports mlflow only when first asked: it costs more than a second.
"""

import os
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from service.errors import Permanent, Temporary
from service.ports import ModelVersion, RegisteredModel
from service.settings import MlflowSettings

#: MLflow's own patience is minutes. Whoever moves an alias holds it by a lease, and must know before that is over; what
#: looks it up is asked again anyhow.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "12"}
UNANSWERED = ("failed with exception", "failed with timeout")  #: in MLflow's text, before 300 characters of urllib3's
NEVER = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
#: What ends a move besides: as long as it is tried again, nobody else can move the alias. A login (UNAUTHENTICATED) is
#: of all calls and is mended for all. What only looks something up waits for a right: a run's versions come but once.
REFUSALS = frozenset({"PERMISSION_DENIED", "BAD_REQUEST", "ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS"})


class MlflowRegistry:
    """A client, made at the first question and kept."""

    def __init__(self, settings: MlflowSettings) -> None:
        self._uri = settings.tracking_uri
        self._made: Any = None
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Import and connect ahead of the first question, which would otherwise wait for seconds."""
        if self._uri:
            self._client()

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version behind `name@alias`, as it is now."""
        return _version(self._ask("get_model_version_by_alias", name, alias), alias)

    def models(self) -> Sequence[RegisteredModel]:
        """Every model by name, with where its aliases point to; none when there is no registry."""
        if not self._uri:
            return ()
        return [_model(item) for item in self._all("search_registered_models")]

    def aliases(self, name: str) -> Mapping[str, int]:
        """Where each alias of the model points to."""
        return _model(self._ask("get_registered_model", name, final=NEVER | REFUSALS)).aliases

    def versions(self, name: str, at_most: int) -> Sequence[ModelVersion]:
        """The newest versions with the metrics of their runs, the newest first."""
        self.aliases(name)
        found = self._ask("search_model_versions", f"name = '{name}'", at_most, ["version_number DESC"])
        return [replace(_version(item, ""), figures=self._figures(item.run_id)) for item in found]

    def _figures(self, run_id: str) -> Mapping[str, float]:
        """A run may have been deleted: its model has no figures then."""
        try:
            return dict(self._ask("get_run", run_id).data.metrics) if run_id else {}
        except Permanent:
            return {}

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point the alias to the version. MLflow does not compare: `service.flow.promote` does."""
        self._ask("set_registered_model_alias", name, alias, str(version), final=NEVER | REFUSALS)

    def link(self, name: str, version: int) -> str:
        """In MLflow's own pages, which its server serves beside the API; told to code hosts, so without a password."""
        if not self._uri.startswith(("http://", "https://")):
            return ""
        return f"{_public(self._uri).rstrip('/')}/#/models/{quote(name, safe='')}/versions/{version}"

    def tagged(self, run_key: str) -> Sequence[ModelVersion]:
        """Every version with the tag `run_key`; none when there is no registry."""
        if not self._uri:
            return ()
        found = self._ask("search_model_versions", f"tags.run_key = '{run_key}'")
        return [_version(item, "") for item in found]

    def runs_tagged(self, run_key: str) -> Sequence[str]:
        """The ids of MLflow's runs with the tag `run_key`, in whichever experiment; none when there is no registry."""
        if not self._uri:
            return ()
        everywhere = [one.experiment_id for one in self._ask("search_experiments")]
        return [one.info.run_id for one in self._ask("search_runs", everywhere, f"tags.run_key = '{run_key}'")]

    def _all(self, method: str) -> Sequence[Any]:
        """Every page of a search."""
        found, token = [], None
        while True:
            page = self._ask(method, None, 200, None, token)
            found += page
            token = page.token
            if not token:
                return found

    def _ask(self, method: str, *arguments: Any, final: Collection[str] = NEVER) -> Any:
        if not self._uri:
            raise Temporary("no model registry is configured: set KFP_TRIGGERS_MLFLOW__TRACKING_URI", delay=30)
        client = self._client()  # imports under a lock: two threads that import MLflow at once deadlock
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  # slow import, see the module's head

        try:
            return getattr(client, method)(*arguments)
        except MlflowException as error:
            raise _translated(error, final) from error
        except OSError as error:
            raise Temporary(f"the model registry does not answer: {type(error).__name__}") from error

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                from mlflow import MlflowClient  # noqa: PLC0415

                # Loads the plugins of whatever is installed, Feast's for seconds: else within the first question.
                from mlflow.tracking.request_header import registry  # noqa: F401, PLC0415

                for name, value in PATIENCE.items():
                    os.environ.setdefault(name, value)
                self._made = MlflowClient(tracking_uri=self._uri)
            return self._made


def _translated(error: Any, final: Collection[str]) -> Exception:
    """MLflow's one exception class by its code; what it could not reach has INTERNAL_ERROR."""
    if any(word in str(error.message) for word in UNANSWERED):
        return Temporary("the model registry at KFP_TRIGGERS_MLFLOW__TRACKING_URI does not answer")
    if error.error_code in final:
        return Permanent(f"the model registry: {_first_line(error)}")
    return Temporary(f"the model registry: {_first_line(error)}")


def _first_line(error: Any) -> str:
    return _public(str(error.message).splitlines()[0])[:300] if error.message else error.error_code


def _public(text: str) -> str:
    """Without what stands before the @ of an address, and without a credential that a server repeats."""
    return re.sub(r"(?i)\b(basic|bearer) \S+", r"\1 …", re.sub(r"//[^/\s]*@", "//", text))


def _version(found: Any, alias: str) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        alias=alias,
        version=int(found.version),
        run_id=found.run_id or "",
        source=found.source or "",
        tags=dict(found.tags or {}),
        created_at=_time(found.creation_timestamp),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _model(found: Any) -> RegisteredModel:
    return RegisteredModel(name=found.name, aliases={alias: int(version) for alias, version in found.aliases.items()})
