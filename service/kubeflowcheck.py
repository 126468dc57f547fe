"""What `doctor` says of a KFP server: is it there, is it KFP and which, whom does it take us for, may we make runs.

Called by `service.kubeflow`. Looks only: the one POST names a pipeline version that cannot exist, which KFP finds out
after it has asked whether we may make runs, and before it makes anything (measured on 2.17).
"""

import re
from collections.abc import Iterator, Sequence

from service.errors import ServiceError, Temporary
from service.kubeflowapi import Api, Json
from service.kubeflowerrors import Denied, Page, Refusal
from service.ports import Finding
from service.settings import BackendSettings

_OLDEST, _NEWEST = (2, 0), (2, 17)  #: known to work
_SIGNS = {"multi_user", "commit_sha", "tag_name"}
_NOWHERE = "00000000-0000-4000-8000-000000000000"


def check(api: Api, name: str, settings: BackendSettings) -> Sequence[Finding]:
    """Finding by finding, up to the one after which the others mean nothing."""
    try:
        return list(_findings(api, name, settings))
    except Exception as error:  # noqa: BLE001 - doctor shows what else is wrong, too
        return [_bad("reachable", f"{settings.endpoint}: {error}")]


def _findings(api: Api, name: str, settings: BackendSettings) -> Iterator[Finding]:
    try:
        health = api.ask("ask for its health", "healthzs.healthz_service_get_healthz")
    except ServiceError as error:
        yield _bad("reachable", f"{settings.endpoint}: {_unhealthy(api, error)}")
        return
    if not _SIGNS & set(health):
        yield _bad("reachable", f"{settings.endpoint}: something answers that is not Kubeflow Pipelines")
        return
    yield _good("reachable", settings.endpoint)
    yield _version(health)
    yield _namespace(bool(health.get("multi_user")), name, settings)
    yield _may_list(api, settings)
    yield _may_create(api, settings)


def _unhealthy(api: Api, error: ServiceError) -> str:
    if not isinstance(error, Refusal | Page):
        return error.detail
    try:
        old = api.raw("ask for its health", "GET", "/apis/v1beta1/healthz")
    except ServiceError:
        return error.detail
    return "this is Kubeflow Pipelines 1.x; 2.0 or later is needed" if _SIGNS & set(old) else error.detail


def _version(health: Json) -> Finding:
    tag, commit = str(health.get("tag_name") or "unknown"), str(health.get("commit_sha") or "unknown")
    shown = f"{tag} ({commit[:12]})" if commit not in {"unknown", tag} else tag
    if not (found := re.match(r"v?(\d+)\.(\d+)", tag)):
        return _good("version", f"{shown}: it does not say which; {_span()} are known to work")
    version = (int(found[1]), int(found[2]))
    if version < _OLDEST:
        return _bad("version", f"{shown}: 2.0 or later is needed")
    remark = f": newer than {_span()}, which are known to work" if version > _NEWEST else ""
    return _good("version", shown + remark)


def _span() -> str:
    return f"{'.'.join(map(str, _OLDEST))} to {'.'.join(map(str, _NEWEST))}"


def _namespace(multi_user: bool, name: str, settings: BackendSettings) -> Finding:
    if multi_user and not settings.namespace:
        return _bad("namespace", f"it is a multi-user server: set backends.{name}.namespace to that of a profile")
    if settings.namespace and not multi_user:
        told = f"it is a single-user server: it ignores backends.{name}.namespace, leave it out"
        return _bad("namespace", told)
    return _good("namespace", settings.namespace or "none: it is a single-user server")


def _may_list(api: Api, settings: BackendSettings) -> Finding:
    try:
        api.ask("list runs", "runs.run_service_list_runs", namespace=settings.namespace, page_size=1)
    except ServiceError as error:
        return _bad("may see runs", error.detail)
    return _good("may see runs", "yes")


def _may_create(api: Api, settings: BackendSettings) -> Finding:
    """By a run that cannot be made, in an experiment that is there: an absent one would hide the answer."""
    what = "may make runs"
    try:
        listed = api.ask(
            "list experiments",
            "experiments.experiment_service_list_experiments",
            namespace=settings.namespace,
            page_size=1,
        )
        if not (experiments := listed.get("experiments")):
            return _good(what, "not tried: there is no experiment yet, and trying would leave one behind")
        body = {
            "display_name": "kfp-triggers doctor: this run cannot be made",
            "experiment_id": experiments[0]["experiment_id"],
            "pipeline_version_reference": {"pipeline_id": _NOWHERE, "pipeline_version_id": _NOWHERE},
        }
        api.ask("try to make a run", "runs.run_service_create_run", body)
    except Refusal as error:
        return _good(what, "yes") if _NOWHERE in error.said else _bad(what, error.detail)
    except Denied as error:
        where = f"in namespace {settings.namespace}" if settings.namespace else "there"
        need = f"the verb create on runs.pipelines.kubeflow.org {where}"
        return _bad(what, f"{error.detail}; needed: {need}")
    except Temporary as error:
        return _bad(what, error.detail)
    return _bad(what, "a run of a version that does not exist was accepted: is this Kubeflow Pipelines?")


def _good(what: str, detail: str) -> Finding:
    return Finding(what=what, good=True, detail=detail)


def _bad(what: str, detail: str) -> Finding:
    return Finding(what=what, good=False, detail=detail)
