"""Pipelines and their versions on a KFP server: looked up by name, remembered for a while, and uploaded.

Called by `service.kubeflow`. A version's name is bound to its content: what is uploaded under a name that is taken
must be the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from service.errors import Permanent
from service.kubeflowapi import Api, Json, equals, where
from service.kubeflowerrors import Refusal
from service.kubeflowruns import time_of
from service.log import logger
from service.packages import compiled, described, digest_of, images_of
from service.ports import Pipeline, Version

_EXACT, _LATEST = 60.0, 2.0  #: seconds that an answer is remembered
_REMEMBERED = 1000
_NAMED = 20
_PAGE = 50  #: versions carry their whole spec
_LIST = "pipelines.pipeline_service_list_pipelines"
_VERSIONS = "pipelines.pipeline_service_list_pipeline_versions"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A version with the server's ids."""

    pipeline: Pipeline
    pipeline_id: str
    version_id: str


class Pipelines:
    """A server's, in our namespace and the shared ones. Usable from many threads."""

    def __init__(self, api: Api, namespace: str, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._namespace = namespace
        self._now = now
        self._known: dict[str, tuple[float, Resolved]] = {}
        self._images: dict[str, Sequence[str]] = {}

    def resolve(self, reference: str) -> Resolved:
        """What `name@version` or `name@latest` is now; Permanent, naming what there is, when there is none."""
        until, found = self._known.get(reference, (0.0, None))
        if found and self._now() < until:
            return found
        found = self._looked_up(reference)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[reference] = (self._now() + (_LATEST if reference.endswith("@latest") else _EXACT), found)
        return found

    def forget(self, reference: str) -> None:
        """The server says that an id is unknown."""
        self._known.pop(reference, None)

    def spec(self, pipeline_id: str, version_id: str) -> Json:
        """A version's spec as the server has it: alone, or as `pipeline_spec` beside its `platform_spec`."""
        what = "pipelines.pipeline_service_get_pipeline_version"
        found = self._api.ask("read a pipeline version", what, pipeline_id, version_id)
        return dict(found.get("pipeline_spec") or {})

    def images(self, pipeline_id: str, version_id: str) -> tuple[Sequence[str], bool]:
        """The container images of a version, and whether the server was asked for them."""
        if (known := self._images.get(version_id)) is not None:
            return known, False
        if len(self._images) >= _REMEMBERED:
            self._images.clear()
        found = self._images[version_id] = images_of(documents_of(self.spec(pipeline_id, version_id))[0])
        return found, True

    def versions(self, name: str) -> Sequence[Version]:
        """Of one pipeline, or of all; by name, then the newest first."""
        found = [
            _version(pipeline, one)
            for pipeline in ([self._named(name)] if name else self._all())
            for page in self._pages(pipeline["pipeline_id"])
            for one in page
        ]
        return sorted(found, key=attrgetter("pipeline"))  # stable: each pipeline's came the newest first

    def push(self, name: str, version: str, content: bytes) -> bool:
        """Upload it as that version. False when it is there with this content; Permanent with another."""
        digest = compiled(content, f"{name}@{version}").digest
        pipeline_id = self._ours(name)
        if self._is_there(pipeline_id, name, version, digest):
            return False
        given = {"name": version, "pipelineid": pipeline_id}
        doing, path = f"upload {name}@{version}", "/apis/v2beta1/pipelines/upload_version"
        try:
            self._api.raw(doing, "POST", path, content, **given)
        except Refusal as error:
            # Somebody was faster; or what an upload answers to everything else: see there.
            if error.status == 409 and self._is_there(pipeline_id, name, version, digest):
                return False
            if error.status == 400 and self._namespace:
                told = f"{error.detail}; may we create pipelines in namespace {self._namespace}?"
                raise Refusal(told, error.status, error.said) from error
            raise
        self.forget(f"{name}@latest")
        return True

    def _is_there(self, pipeline_id: str, name: str, version: str, digest: str) -> bool:
        found = self._one_version(pipeline_id, version)
        if found and digest_of(documents_of(found.get("pipeline_spec") or {})) != digest:
            raise Permanent(f"{name}@{version} has other content: give changed content a new version")
        return found is not None

    def _ours(self, name: str) -> str:
        """The id of the pipeline in our own namespace, made when absent; another may make it at the same time."""
        doing, what = f"make pipeline {name}", "pipelines.pipeline_service_create_pipeline"
        if found := self._in(self._namespace, name):
            return str(found["pipeline_id"])
        body = {"display_name": name} | ({"namespace": self._namespace} if self._namespace else {})
        try:
            return str(self._api.ask(doing, what, body)["pipeline_id"])
        except Refusal as error:
            if error.status == 409 and (found := self._in(self._namespace, name)):
                return str(found["pipeline_id"])
            raise

    def _looked_up(self, reference: str) -> Resolved:
        name, _, version = reference.rpartition("@")
        if not name or not version:
            raise Permanent(f"a pipeline is written name@version: {reference[:100]!r}")
        pipeline = self._named(name)
        pipeline_id = str(pipeline["pipeline_id"])
        found = self._newest(pipeline_id, name) if version == "latest" else self._one_version(pipeline_id, version)
        if found is None:
            raise Permanent(f"there is no {reference}; {self._there(pipeline_id)}")
        if wrong := (found.get("error") or {}).get("message"):
            raise Permanent(f"{name}@{_name(found)} is no use: {wrong}")
        package = described(documents_of(found.get("pipeline_spec") or {}), f"{name}@{_name(found)}")
        return Resolved(
            pipeline=Pipeline(
                reference=reference,
                name=name,
                version=_name(found),
                digest=package.digest,
                inputs=package.inputs,
                images=package.images,
            ),
            pipeline_id=pipeline_id,
            version_id=str(found["pipeline_version_id"]),
        )

    def _newest(self, pipeline_id: str, name: str) -> Json | None:
        """By `created_at`, which has whole seconds; within one by id, and that is chance: so it is said."""
        given = {"page_size": 2, "sort_by": "created_at desc"}
        found = self._api.ask("list pipeline versions", _VERSIONS, pipeline_id, **given).get("pipeline_versions") or []
        if len(found) > 1 and found[0].get("created_at") == found[1].get("created_at"):
            logger.warning("latest_is_ambiguous", pipeline=name, taken=_name(found[0]), other=_name(found[1]))
        return found[0] if found else None

    def _one_version(self, pipeline_id: str, version: str) -> Json | None:
        """By its name, and on a server that tells them apart by the name that the UI shows."""
        for key in ("name", "display_name"):
            for page in self._pages(pipeline_id, filter=where(equals(key, version))):
                for one in page:
                    if one.get(key, _name(one)) == version:
                        return one
        return None

    def _pages(self, pipeline_id: str, **given: Any) -> Iterator[list[Json]]:
        sort = {"sort_by": "created_at desc", "page_size": _PAGE}
        return self._api.pages("list pipeline versions", _VERSIONS, "pipeline_versions", pipeline_id, **(sort | given))

    def _named(self, name: str) -> Json:
        """In our namespace, or else among the shared ones."""
        for namespace in dict.fromkeys((self._namespace, "")):
            if found := self._in(namespace, name):
                return found
        names = sorted(_name(one) for one in self._all())
        raise Permanent(f"there is no pipeline {name[:200]}; {_listed(names)}")

    def _in(self, namespace: str, name: str) -> Json | None:
        for key in ("name", "display_name"):
            given = {"namespace": namespace, "filter": where(equals(key, name))}
            for page in self._api.pages(f"look up pipeline {name[:200]}", _LIST, "pipelines", **given):
                for one in page:
                    if one.get(key, _name(one)) == name:
                        return one
        return None

    def _all(self) -> list[Json]:
        found: dict[str, Json] = {}
        for namespace in dict.fromkeys((self._namespace, "")):
            for page in self._api.pages("list pipelines", _LIST, "pipelines", namespace=namespace, page_size=200):
                found.update({str(one["pipeline_id"]): one for one in page})
        return list(found.values())

    def _there(self, pipeline_id: str) -> str:
        return _listed([_name(one) for one in next(self._pages(pipeline_id, page_size=_NAMED + 1))])


def documents_of(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A server's spec as the documents of a package: the pipeline, and the platform's where it has one."""
    if "pipeline_spec" not in spec:
        return [spec]
    return [one for one in (spec["pipeline_spec"], spec.get("platform_spec")) if one]


def _version(pipeline: Json, found: Json) -> Version:
    return Version(
        pipeline=_name(pipeline),
        version=_name(found),
        digest=digest_of(documents_of(found.get("pipeline_spec") or {})),
        created_at=time_of(found.get("created_at")),
        id=str(found["pipeline_version_id"]),
    )


def _name(found: Json) -> str:
    """A server before 2.14 has the display name alone."""
    return str(found.get("name") or found.get("display_name") or "")


def _listed(names: Sequence[str]) -> str:
    more = " and more" if len(names) > _NAMED else ""
    return f"there is {', '.join(names[:_NAMED])}{more}" if names else "there is none at all"
