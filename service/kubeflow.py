"""The KFP backend: runs are sent to a Kubeflow Pipelines API server, and looked at, found and ended there.

Fits `ports.Backend`. KFP has no request id: a run is known by the run key at the end of its name, and no POST is sent
twice, save where the server has said that it made no run. What is sent is checked before, for KFP answers some of it
only after it has started the run. Built by `service.wiring`; asks nothing and imports no kfp until it is first used.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from service.errors import Permanent, Temporary
from service.kubeflowapi import Api, Json, contains, equals, where
from service.kubeflowcheck import check
from service.kubeflowerrors import Refusal
from service.kubeflowpipelines import Pipelines, Resolved
from service.kubeflowruns import key_of, text_of
from service.kubeflowspec import cached, spec_of
from service.kubeflowwatch import Watch, reason
from service.ledger import Rate
from service.ports import Defaults, Finding, Job, Look, Pipeline, Version
from service.settings import BackendSettings
from triggers.rules.params import misfit, missing

_NAME_AT_MOST = 255  #: characters; one more is a 500
_UNFIT = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")  # 4 bytes in UTF-8, or no character at all


class KubeflowBackend:
    """Runs pipelines on a Kubeflow Pipelines API server. Usable from many threads."""

    kind = "kfp"

    def __init__(self, name: str, settings: BackendSettings, now: Callable[[], float] = time.monotonic) -> None:
        """`settings` as `service.settings.load` gives them; `now`: seconds of a clock that only goes forward."""
        self.name = name
        self.settle = settings.settle or 0.0
        self.rate = Rate(per_second=settings.rate, burst=settings.burst) if settings.rate else None
        self.defaults = Defaults(
            experiment=settings.experiment,
            caching=settings.caching,
            service_account=settings.run_as,
            pipeline_root=settings.pipeline_root,
            time_limit=timedelta(seconds=settings.time_limit),
        )
        self._settings = settings
        self._now = now
        self._api = Api(settings)
        self._pipelines = Pipelines(self._api, settings.namespace, now)
        self._watch = Watch(self._api, self._pipelines, settings.namespace, settings.polls, now)
        self._experiments: dict[str, str] = {}

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline behind `name@version`; Permanent, naming what there is, when there is none.

        `name@latest` is the newest by KFP's `created_at`, which has whole seconds: within one, chance decides.
        """
        return self._pipelines.resolve(reference).pipeline

    def has_room(self) -> bool:
        """KFP takes any number and queues them itself."""
        return True

    def find(self, run_key: str) -> Sequence[str]:
        """The ids of the runs whose name ends in the key, archived ones too, the oldest first."""
        query = {
            "namespace": self._settings.namespace,
            "filter": where(contains("display_name", run_key)),
            "sort_by": "created_at asc",
            "page_size": 200,
        }
        pages = self._api.pages("look for a run", "runs.run_service_list_runs", "runs", **query)
        runs = [run for page in pages for run in page]
        return [str(run["run_id"]) for run in runs if key_of(run) == run_key]

    def create(self, job: Job) -> str:
        """Make the run and return KFP's id. A Temporary that comes before the POST says that nothing happened."""
        _checked(job)
        began = self._now()
        try:
            return self._post(self._prepared(job), began)
        except Refusal as error:
            if not _is_outdated(error):
                raise
        # What was remembered is not there any more, and KFP made no run for it: look again, once.
        self._experiments.clear()
        self._pipelines.forget(_reference(job))
        return self._post(self._prepared(job), began)

    def observe(self, backend_ids: Sequence[str], *, awaited: bool = False) -> Look:
        """A look at all of them, in no more calls than settings allow; what was not asked now is left out."""
        return self._watch.look(backend_ids, awaited=awaited)

    def cancel(self, backend_id: str) -> None:
        """Terminate it; KFP calls that FAILED in the end. Nothing happens to one that has ended or is gone."""
        try:
            self._api.ask("end a run", "runs.run_service_terminate_run", backend_id)
        except Refusal as error:
            # Any other 404, such as that its experiment is gone, leaves it running.
            gone = error.status == 404 and f"Run {backend_id} not found" in error.said
            if not gone and not (error.status == 400 and "Row not found" in error.said):
                raise

    def retry(self, backend_id: str) -> None:
        """Take a failed or ended run up again where it stopped; Permanent when KFP does not."""
        self._api.ask("retry a run", "runs.run_service_retry_run", backend_id)

    def log(self, backend_id: str) -> str:
        """Its states and tasks and why it failed; the pods' logs are no part of KFP's API."""
        run = self._api.ask("look at a run", "runs.run_service_get_run", backend_id)
        return text_of(run, reason(self._api, run), self.link(backend_id))

    def link(self, backend_id: str) -> str:
        """The run's page in KFP's UI, or in the Kubeflow dashboard around it."""
        ui, namespace = self._settings.ui or self._settings.endpoint, self._settings.namespace
        if namespace and ui.rstrip("/").endswith("/_/pipeline"):
            return f"{ui.rstrip('/')}/?ns={namespace}#/runs/details/{backend_id}"
        return f"{ui.rstrip('/')}/#/runs/details/{backend_id}"

    def versions(self, name: str = "") -> Sequence[Version]:
        """The versions of a pipeline, or of all of them; by name, then the newest first."""
        return self._pipelines.versions(name)

    def push(self, name: str, version: str, content: bytes) -> bool:
        """Upload a package as a version. False when it is there with this content; Permanent with another."""
        return self._pipelines.push(name, version, content)

    def check(self) -> Sequence[Finding]:
        """What `doctor` says of it. Raises nothing and leaves nothing behind."""
        return check(self._api, self.name, self._settings)

    def _prepared(self, job: Job) -> Json:
        try:
            return self._body(job)
        except Temporary as error:
            raise Temporary(error.detail, delay=error.delay, nothing_happened=True) from error

    def _body(self, job: Job) -> Json:
        """The run as KFP wants it. Asks for ids, and makes what is absent: the version of a package, the experiment."""
        root = job.pipeline_root or self.defaults.pipeline_root
        account = job.service_account or self.defaults.service_account
        config = {"parameters": {**job.params, **job.secrets}} | ({"pipeline_root": root} if root else {})
        return {
            "display_name": job.display_name,
            "description": job.description,
            "runtime_config": config,
            **self._source(job),
            **({"service_account": account} if account else {}),
            "experiment_id": self._experiment(job.experiment or self.defaults.experiment),
        }

    def _source(self, job: Job) -> Json:
        """A reference to the version; the spec itself for a package, or where caching is told: a reference cannot."""
        caching = self.defaults.caching if job.caching is None else job.caching
        if job.package and not job.package.upload:
            return {"pipeline_spec": cached(spec_of(job.package.content, job.pipeline.reference), caching)}
        if job.package:
            self.push(job.pipeline.name, job.pipeline.version, job.package.content)
        found = self._pipelines.resolve(_reference(job))
        if found.pipeline.digest != job.pipeline.digest:
            raise Permanent(f"{_reference(job)} is not what it was when the run was decided: same name, other content")
        if caching is None:
            return {"pipeline_version_reference": _ids(found)}
        return {"pipeline_spec": cached(self._pipelines.spec(found.pipeline_id, found.version_id), caching)}

    def _experiment(self, name: str) -> str:
        """Its id; made when absent, which another may do at the same time."""
        if known := self._experiments.get(name):
            return known
        found = self._experiment_named(name)
        if found is None:
            namespace = self._settings.namespace
            body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
            try:
                found = self._api.ask(
                    f"make experiment {name}", "experiments.experiment_service_create_experiment", body
                )
            except Refusal as error:
                found = self._experiment_named(name) if error.status == 409 else None
                if found is None:
                    raise
        self._experiments[name] = str(found["experiment_id"])
        return self._experiments[name]

    def _experiment_named(self, name: str) -> Json | None:
        given = {"namespace": self._settings.namespace, "filter": where(equals("display_name", name))}
        what = "experiments.experiment_service_list_experiments"
        for page in self._api.pages(f"look up experiment {name}", what, "experiments", **given):
            for one in page:
                if one.get("display_name") == name:
                    return one
        return None

    def _post(self, body: Json, began: float) -> str:
        """Unless so much time went by that another may already have looked whether this run was made."""
        timeout = self._settings.timeout
        if self._now() - began > min(timeout, max(self.settle - timeout, 0.5)):
            raise Temporary("looking up pipeline and experiment took too long", nothing_happened=True)
        made = self._api.ask("make a run", "runs.run_service_create_run", body)
        if not made.get("run_id"):
            raise Temporary("make a run: the answer has no run id")
        return str(made["run_id"])


def _reference(job: Job) -> str:
    return f"{job.pipeline.name}@{job.pipeline.version}"


def _ids(found: Resolved) -> Mapping[str, str]:
    return {"pipeline_id": found.pipeline_id, "pipeline_version_id": found.version_id}


def _checked(job: Job) -> None:
    """What the server would let slip, or answer with a 500 after it has started the run."""
    params = {**job.params, **job.secrets}
    found = [
        f"the parameter {name} {told}" for name in params if (told := misfit(name, params[name], job.pipeline.inputs))
    ]
    found += [f"the parameter {name} has no value" for name in missing(params, job.pipeline.inputs)]
    texts = {"name": job.display_name, "description": job.description, "experiment": job.experiment}
    found += [
        f"the {what} holds a character that KFP cannot store" for what, text in texts.items() if _UNFIT.search(text)
    ]
    if len(job.display_name) > _NAME_AT_MOST:
        found.append(f"the name has {len(job.display_name)} characters: KFP takes {_NAME_AT_MOST}")
    if job.display_name.split()[-1:] != [job.run_key]:
        found.append("the name does not end in the run key, and so would not be found again")
    if found:
        raise Permanent("; ".join(found))


def _is_outdated(error: Refusal) -> bool:
    """Whether KFP says of a run that it was not made, for an id in it is unknown."""
    unknown = error.status == 404 and "xperiment" in error.said
    return unknown or ("PipelineVersion" in error.said and "not found" in error.said)
