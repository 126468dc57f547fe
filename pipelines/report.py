"""What a step tells about itself: one OpenLineage run event, COMPLETE or FAIL, under the run's report prefix.

Every component opens a `Step` around its work. The watcher of the run reads the objects afterwards; nothing reads
them here. Shapes: https://openlineage.io/spec/2-0-2/OpenLineage.json. A dataset's `namespace.rstrip("/") + "/" +
name.lstrip("/")` is its URI.
"""

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pipelines.errors import PipelineError
from pipelines.storage import ObjectRef, Stored, write_document

PRODUCER = "https://github.com/kfp-triggers/kfp-triggers"
SPEC = "https://openlineage.io/spec/"
RUN_EVENT = SPEC + "2-0-2/OpenLineage.json#/$defs/RunEvent"
NAMESPACE = "kfp-triggers"
AT_MOST = 1024 * 1024  # bytes; whoever reads the reports reads no more of one

Facet = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Something the step read or wrote, by its OpenLineage name, with what is known of it."""

    namespace: str
    name: str
    facets: Facet = field(default_factory=dict)
    statistics: Facet = field(default_factory=dict)


def stored_object(
    ref: ObjectRef, stored: Stored, rows: int | None = None, columns: Mapping[str, str] | None = None
) -> Dataset:
    """An object in a bucket: the exact version, how large, how many rows of which columns."""
    facets = {"version": _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=stored.version)}
    if columns:
        fields = [{"name": name, "type": kind} for name, kind in columns.items()]
        facets["schema"] = _facet("SchemaDatasetFacet", "1-1-1", fields=fields)
    statistics: Facet = {"size": stored.size} if rows is None else {"rowCount": rows, "size": stored.size}
    return Dataset(f"s3://{ref.bucket}", ref.key, facets, statistics)


def model_version(name: str, version: int, about: Mapping[str, str] | None = None) -> Dataset:
    """A version in MLflow's registry; the URI is MLflow's own, `models:/name/version`.

    What is said `about` it stands on its edge in the lineage: a few short facts, by name.
    """
    facets = {"version": _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=str(version))}
    if about:
        facets["kfpTriggers_about"] = {"_producer": PRODUCER, "_schemaURL": RUN_EVENT, **about}
    return Dataset("models:", f"{name}/{version}", facets)


def commit(repository: str, revision: str) -> Dataset:
    """The code of a model; credentials written into the repository's URL are left out."""
    parts = urlsplit(repository)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme else repository
    return Dataset(
        plain, f"commit/{revision}", {"version": _facet("DatasetVersionDatasetFacet", "1-0-1", datasetVersion=revision)}
    )


class Step:
    """One execution of one component: collects what it read, wrote and counted, and reports when the block ends.

    A failure is reported before it goes on. Where the report cannot be written the step fails, unless it was failing
    anyhow: a run whose lineage is silently missing is worse than one that is repeated, and a repetition changes
    nothing else.

    `shard` tells apart the executions of one component in one run: 1, 2, ... where the rows were cut into several
    shards, 0 where they were not. It stands in the report's name, `<component>-0003.json`, and in the run id.
    """

    def __init__(self, job: str, run_key: str, report_uri: str, shard: int = 0) -> None:
        self.pipeline, _, self.component = job.partition(".")
        self.name = f"{self.component}-{shard:04}" if shard else self.component
        self.job = job
        self.run_key = run_key
        self.report_uri = report_uri
        self.inputs: list[Dataset] = []
        self.outputs: list[Dataset] = []
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.report_uri:
            return
        try:
            self._write(self.event(error))
        except Exception:
            if error is None:
                raise
            log.exception("report_not_written")

    def event(self, error: BaseException | None = None) -> dict[str, Any]:
        """The run event as it will be written."""
        return {
            "eventType": "COMPLETE" if error is None else "FAIL",
            "eventTime": datetime.now(UTC).isoformat(),
            "run": {"runId": _run_id(f"{self.run_key}/{self.name}"), "facets": self._run_facets(error)},
            "job": {"namespace": NAMESPACE, "name": self.job},
            "inputs": [_dataset(item, "inputFacets", "InputStatisticsInputDatasetFacet") for item in self.inputs],
            "outputs": [_dataset(item, "outputFacets", "OutputStatisticsOutputDatasetFacet") for item in self.outputs],
            "producer": PRODUCER,
            "schemaURL": RUN_EVENT,
        }

    def _run_facets(self, error: BaseException | None) -> Facet:
        parent = {"run": {"runId": _run_id(self.run_key)}, "job": {"namespace": NAMESPACE, "name": self.pipeline}}
        facets = {"parent": _facet("ParentRunFacet", "1-1-0", **parent)}
        left_out = [name for name, value in self.facts.items() if not _is_json(value)]
        facets["kfpTriggers_report"] = {
            "_producer": PRODUCER,
            "_schemaURL": RUN_EVENT,
            "runKey": self.run_key,
            **{name: value for name, value in self.facts.items() if name not in left_out},
            **({"left_out": left_out} if left_out else {}),
        }
        if error is not None:
            facets["errorMessage"] = _facet(
                "ErrorMessageRunFacet", "1-0-1", message=told(error), programmingLanguage="python"
            )
        return facets

    def _write(self, event: dict[str, Any]) -> None:
        content = json.dumps(event, allow_nan=False, indent=1).encode()
        if len(content) > AT_MOST:  # the figures are what can grow; who read and wrote what must stay
            event["run"]["facets"]["kfpTriggers_report"] = {
                "_producer": PRODUCER, "_schemaURL": RUN_EVENT, "runKey": self.run_key, "truncated": True
            }  # fmt: skip
            content = json.dumps(event, allow_nan=False).encode()
        write_document(f"{self.report_uri.rstrip('/')}/{self.name}.json", content)


def told(error: BaseException) -> str:
    """What a report may say of a failure. A library's own text may quote a row, so only the run's log has that."""
    return (
        str(error)[:2000]
        if isinstance(error, PipelineError)
        else f"{type(error).__name__}; the run's log has the traceback"
    )


def _is_json(value: Any) -> bool:
    """A fact that is none, such as a date or a NaN, is left out by name: the rest of the report is worth more."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _run_id(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}:{text}"))


def _dataset(dataset: Dataset, key: str, kind: str) -> dict[str, Any]:
    event: dict[str, Any] = {"namespace": dataset.namespace, "name": dataset.name, "facets": dataset.facets}
    if dataset.statistics:
        event[key] = {f"{key.removesuffix('Facets')}Statistics": _facet(kind, "1-0-0", **dataset.statistics)}
    return event


def _facet(name: str, version: str, **values: Any) -> Facet:
    return {"_producer": PRODUCER, "_schemaURL": f"{SPEC}facets/{version}/{name}.json#/$defs/{name}", **values}
