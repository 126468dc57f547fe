"""Which pipeline a rule runs: by its backend's name and version, from a file, or from the commit that was pushed.

Called by `service.flow.decide` for each decision: what is resolved here is recorded with the run and is what runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import Permanent, Temporary
from service.packages import compiled
from service.ports import App, Pipeline
from triggers.rules.model import Candidate, Rule
from triggers.sourcefile import Source


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The pipeline; of a package also its bytes."""

    pipeline: Pipeline
    content: bytes | None = None
    upload: bool = False  #: as a version of its own, before it runs
    service_account: str = ""  #: that the source insists on


def resolve(app: App, sources: Mapping[str, Source], rule: Rule, candidate: Candidate) -> Resolved | str | None:
    """What runs; None when it cannot be told now, a text when there is none."""
    kind, _, path = rule.run.pipeline.partition(":")
    backend = app.backends.get(rule.run.backend)
    if backend is None:
        return f"no backend is named {rule.run.backend}"
    try:
        if kind == "package":
            return _of_file(app, path)
        if kind == "commit":
            return _of_commit(app, sources, candidate, path)
        return Resolved(pipeline=backend.pipeline(rule.run.pipeline))
    except Temporary:
        return None
    except Permanent as error:
        return error.detail


def _of_file(app: App, path: str) -> Resolved:
    content = app.packages.file(path)
    return Resolved(pipeline=pipeline_in(content, path), content=content)


def _of_commit(app: App, sources: Mapping[str, Source], candidate: Candidate, path: str) -> Resolved:
    """Uploaded under a name of the repository's own: no push makes a version of somebody else's pipeline."""
    told = candidate.event.data
    repository, sha = str(told.get("repository", "")), str(told.get("sha", ""))
    source = sources.get(candidate.source)
    if source is None or not sha:
        raise Permanent(f"{candidate.event.type} of source {candidate.source} tells of no commit to take {path} from")
    found = app.packages.of_commit(source, repository, sha, path)
    pipeline = pipeline_in(found.content, f"{path} of {sha[:12]}")
    name = f"{re.sub('[^a-z0-9]+', '-', repository.lower()).strip('-')}.{pipeline.name}"
    named = Pipeline(reference=f"{name}@{sha}", name=name, version=sha, digest=pipeline.digest, inputs=pipeline.inputs)
    return Resolved(pipeline=named, content=found.content, upload=True, service_account=found.service_account)


def pipeline_in(content: bytes, where: str) -> Pipeline:
    """The pipeline in a compiled file, its digest standing for a version."""
    found = compiled(content, where)
    version = found.digest[:12]
    return Pipeline(
        reference=f"{found.name}@{version}", name=found.name, version=version, digest=found.digest, inputs=found.inputs
    )
