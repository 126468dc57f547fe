"""A compiled pipeline as a run carries it inline: from a package's file, and with caching as it was asked for.

Called by `service.kubeflow`, where a run cannot name a version that KFP knows.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from service.packages import compiled

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


def spec_of(content: bytes, where: str) -> dict[str, Any]:
    """A package's spec: alone, or as `pipeline_spec` beside its `platform_spec`; Permanent when it is none."""
    compiled(content, where)  # refuses what is no pipeline, or would not be safe to read
    documents = [one for one in yaml.load_all(content, _LOADER) if one]
    if len(documents) == 1:
        return dict(documents[0])
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def cached(spec: Mapping[str, Any], caching: bool | None) -> dict[str, Any]:
    """The spec with caching on or off for every task, in loops and sub-pipelines too; None: as it was compiled."""
    changed = copy.deepcopy(dict(spec))
    if caching is not None:
        for task in _tasks(changed.get("pipeline_spec", changed)):
            task["cachingOptions"] = (task.get("cachingOptions") or {}) | {"enableCache": caching}
    return changed


def _tasks(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for component in (spec.get("root") or {}, *(spec.get("components") or {}).values()):
        yield from ((component.get("dag") or {}).get("tasks") or {}).values()
