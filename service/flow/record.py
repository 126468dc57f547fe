"""Step 6: an ended run's lineage is pulled in: what it reported, what its rule declares, what the registry says.

Reports are OpenLineage run events that the components wrote under the run's report prefix: bounded and not trusted. Of
a run whose secrets nobody can take out of them any more, they are read and none of their texts is kept.
Called by `service.flow.watch` at the end of a run and by `service.flow.sweep` for what could not be read then.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from service.errors import Permanent, Temporary
from service.failpoints import failpoint
from service.flow.mask import given, without
from service.flow.observe import observations_of
from service.flow.verdict import act
from service.log import bound, logger
from service.ports import App
from service.records import Edge, RunRecord

MAX_DATASETS = 200  #: of one report; a report with more is not ours
MAX_FACTS = 12  #: about one dataset
ABOUT = "kfpTriggers_about"  #: the facet with which a step tells a few facts about a dataset
OBSERVED = ("observation", "observations")  #: facts that have a table of their own


def record(app: App, item: RunRecord) -> None:
    """Write its edges and mark it recorded; leave it for the sweep when reports or secrets cannot be read now."""
    with bound(event_id=item.event_id, rule=item.rule, run_key=item.run_key):
        try:
            secrets = _to_take_out(app, item)
            reports = app.objects.reports(item.report_uri) if item.report_uri else {}
            versions = app.registry.tagged(item.run_key)
            traced = app.registry.runs_tagged(item.run_key)
        except Temporary as error:
            logger.warning("record_later", detail=error.detail)
            return
        except Permanent as error:
            logger.warning("record_without_reports", detail=error.detail)
            reports, versions, traced = {}, (), ()
        read = {
            name: _parse(name, without(body, secrets) if secrets else body) for name, body in sorted(reports.items())
        }
        if secrets is None:
            read = {name: _without_texts(report) for name, report in read.items()}
        node = f"run:{item.run_key}"
        edges = [edge for report in read.values() for edge in edges_of(report, item.run_key)]
        for found in versions:
            target = f"models:/{found.name}/{found.version}"
            told = [edge for edge in edges if (edge.source, edge.target) == (node, target)]
            about = {"run_id": found.run_id, **(told[0].data if told else {})}
            edges = [edge for edge in edges if edge not in told]
            edges.append(Edge(source=node, relation="wrote", target=target, run_key=item.run_key, data=about))
        edges += [
            Edge(source=node, relation="wrote", target=f"mlflow-run:{one}", run_key=item.run_key) for one in traced
        ]
        edges += _told_by_backend(item)
        summary = {name: summary_of(report) for name, report in read.items() if report}
        act(app, item, list(summary.values()), versions)
        now = app.clock.now()
        observed = [one for facts in summary.values() for one in observations_of(facts, item.run_key, now)]
        if secrets is None:
            observed = [replace(one, subject="") if _has_keys(one.subject) else one for one in observed]
        app.ledger.observations.add(observed)  # before the run counts as recorded: a kill in between repeats it
        summary = {name: {key: facts[key] for key in facts if key not in OBSERVED} for name, facts in summary.items()}
        failpoint("run.reports_read")
        outputs = dict(item.outputs) | ({"reports": summary} if summary and secrets is not None else {})
        app.ledger.runs.recorded(item.run_key, edges, outputs, now)
        failpoint("run.recorded")
        logger.info("run_recorded", reports=len(reports), edges=len(edges), observations=len(observed))


def _to_take_out(app: App, item: RunRecord) -> Collection[str] | None:
    """Its secrets; None when nobody will know them again. Temporary when they cannot be read now."""
    try:
        return given(app, item)
    except Permanent as error:
        logger.warning("record_without_texts", detail=error.detail)
        return None


def _without_texts(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its datasets, observations and verdict: no reasons, and no address that has keys in it."""
    facts = {key: told for key, told in summary_of(report).items() if key in (*OBSERVED, "promotion")}
    if isinstance(verdict := facts.get("promotion"), dict):
        facts["promotion"] = {key: told for key, told in verdict.items() if key != "reasons"}
    bare: dict[str, Any] = {"run": {"facets": {"kfpTriggers_report": facts}}}
    for kind in ("inputs", "outputs"):
        datasets = report.get(kind)
        if isinstance(datasets, list):
            bare[kind] = [_without_words(one) for one in datasets[:MAX_DATASETS] if not _has_keys(_uri(one))]
    return bare


def _without_words(dataset: Any) -> Any:
    """A dataset without what its step says about it."""
    facets = dataset.get("facets") if isinstance(dataset, dict) else None
    return {**dataset, "facets": {**facets, ABOUT: None}} if isinstance(facets, dict) else dataset


def _has_keys(uri: str) -> bool:
    """Whether an address may carry a user's password or a signature."""
    return "?" in uri or ("://" in uri and "@" in uri)


def _told_by_backend(item: RunRecord) -> Iterator[Edge]:
    """What the backend itself says of any run, also of a pipeline that reports nothing: artifacts and images."""
    node = f"run:{item.run_key}"
    artifacts = item.outputs.get("artifacts")
    for name, artifact in list(artifacts.items())[:MAX_DATASETS] if isinstance(artifacts, dict) else []:
        uri = artifact.get("uri") if isinstance(artifact, dict) else None
        if isinstance(uri, str) and "://" in uri and not uri.startswith("file://"):
            yield Edge(source=node, relation="wrote", target=uri, run_key=item.run_key, data={"artifact": name})
    images = item.outputs.get("images")
    for image in images[:MAX_DATASETS] if isinstance(images, list) else []:
        yield Edge(source=f"image:{image}", relation="ran in", target=node, run_key=item.run_key)


def _parse(name: str, body: bytes) -> Mapping[str, Any]:
    """A report, or nothing when it is not one: the run's code is not trusted to write JSON."""
    try:
        report = json.loads(body)
    except (ValueError, RecursionError):
        logger.warning("report_not_understood", report=name)
        return {}
    return report if isinstance(report, dict) else {}


def edges_of(report: Mapping[str, Any], run_key: str) -> Iterator[Edge]:
    """OpenLineage's inputs and outputs as edges; anything of another shape is passed over."""
    node = f"run:{run_key}"
    for kind, relation in (("inputs", "read"), ("outputs", "wrote")):
        datasets = report.get(kind)
        for dataset in datasets[:MAX_DATASETS] if isinstance(datasets, list) else []:
            if uri := _uri(dataset):
                source, target = (uri, node) if relation == "read" else (node, uri)
                data = _facts(dataset)
                yield Edge(source=source, relation=relation, target=target, run_key=run_key, data=data)


def _uri(dataset: Any) -> str:
    """`s3://bucket` and `key` as one URI; "" when it is no dataset of OpenLineage."""
    if not isinstance(dataset, dict):
        return ""
    namespace, name = dataset.get("namespace"), dataset.get("name")
    if not isinstance(namespace, str) or not isinstance(name, str) or len(namespace) + len(name) > 4096:
        return ""
    return f"{namespace.rstrip('/')}/{name.lstrip('/')}"


def _facts(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What of a dataset's facets belongs on its edge: what our own says of it, version and row count."""
    about = _at(dataset, "facets", ABOUT)
    facts: dict[str, Any] = {}
    for name, told in list(about.items())[:MAX_FACTS] if isinstance(about, dict) else []:
        if isinstance(told, str) and not name.startswith("_"):
            facts[name[:50]] = told[:200]
    version = _at(dataset, "facets", "version", "datasetVersion")
    if isinstance(version, str):
        facts["version"] = version[:200]
    for facet in ("outputFacets", "inputFacets"):
        for statistics in ("outputStatistics", "inputStatistics", "dataQualityMetrics"):
            rows = _at(dataset, facet, statistics, "rowCount")
            if isinstance(rows, int):
                facts["rows"] = rows
    return facts


def summary_of(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a report that a person wants to see beside the run: our own facet."""
    facet = _at(report, "run", "facets", "kfpTriggers_report")
    return facet if isinstance(facet, dict) else {}


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
