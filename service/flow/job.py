"""What a backend is told of a run: from the run's row, its package and its event.

Called by `service.flow.submit`. What was resolved at the decision is looked up again and must be the same.
"""

import json
from dataclasses import replace

from service.errors import Permanent
from service.flow.resolve import pipeline_in
from service.ports import App, Backend, Job, Package
from service.records import RunRecord
from triggers.event import rfc3339


def job_of(app: App, item: RunRecord, backend: Backend) -> Job:
    """The job; Permanent when its pipeline is not what it was when the run was decided."""
    package = _package(app, item)
    reference = f"{item.pipeline}@{item.pipeline_version}"
    pipeline = backend.pipeline(reference) if package is None else pipeline_in(package.content, reference)
    if item.pipeline_digest and pipeline.digest != item.pipeline_digest:  # "": decided before digests were of content
        raise Permanent(f"{reference} is not what it was when the run was decided: same name with other content")
    return Job(
        run_key=item.run_key,
        display_name=item.display_name,
        description=item.description,
        pipeline=replace(pipeline, reference=reference, name=item.pipeline, version=item.pipeline_version),
        params=item.params,
        experiment=item.experiment,
        time_limit=item.time_limit,
        caching=item.caching,
        service_account=item.service_account,
        pipeline_root=item.pipeline_root,
        package=package,
        secrets=app.secrets.values(item.pipeline, item.secrets) if item.secrets else {},
    )


def _package(app: App, item: RunRecord) -> Package | None:
    if not item.package:
        return None
    content = app.ledger.runs.package(item.package)
    if content is None:
        raise Permanent(f"the store no longer has the package {item.package[:12]} that the run was decided on")
    return Package(content=content, upload=item.upload)


def document_of(app: App, item: RunRecord) -> bytes:
    """The event document: what happened and why this runs, with the values that are no parameters. The same each time.

    Text in it is data, whatever it holds: nothing evaluates it, as Argo does a parameter.
    """
    found = app.ledger.events.get(item.event_id)
    event = found.event if found else None
    told = {
        "event": event
        and {
            "specversion": "1.0",
            "id": item.event_id,
            "source": found.source if found else "",
            "type": f"io.kfp-triggers.{event.type}",
            "subject": event.subject,
            "time": rfc3339(event.time),
            "datacontenttype": "application/json",
            "data": dict(event.data),
        },
        "rule": item.rule,
        "run_key": item.run_key,
        "as_of": item.as_of,
        "params": dict(item.params),
        "values": dict(item.document),
    }
    return json.dumps(told, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
