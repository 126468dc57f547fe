"""The MLflow registry: which version stands behind an alias, which versions carry a run key.

Fits `service.ports.Registry`. Imports mlflow only when first asked: it costs more than a second.
"""

import threading
from collections.abc import Sequence
from typing import Any

from service.errors import Permanent, Temporary
from service.ports import ModelVersion
from service.settings import MlflowSettings


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

    def _ask(self, method: str, *arguments: Any) -> Any:
        if not self._uri:
            raise Temporary("no model registry is configured: set KFP_TRIGGERS_MLFLOW__TRACKING_URI", delay=30)
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  # slow import, see the module's head

        try:
            return getattr(self._client(), method)(*arguments)
        except MlflowException as error:
            raise _translated(error) from error
        except OSError as error:
            raise Temporary(f"the model registry does not answer: {type(error).__name__}") from error

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                from mlflow import MlflowClient  # noqa: PLC0415

                self._made = MlflowClient(tracking_uri=self._uri)
            return self._made


def _translated(error: Any) -> Exception:
    """MLflow's one exception class by its code; what it could not reach has INTERNAL_ERROR."""
    if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
        return Permanent(f"the model registry: {_first_line(error)}")
    return Temporary(f"the model registry: {_first_line(error)}")


def _first_line(error: Any) -> str:
    return str(error.message).splitlines()[0][:300] if error.message else error.error_code


def _version(found: Any, alias: str) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        alias=alias,
        version=int(found.version),
        run_id=found.run_id or "",
        source=found.source or "",
        tags=dict(found.tags or {}),
    )
