"""The pipeline `income-deploy`: a promoted version of a model → a KServe InferenceService that serves it.

    deploy_model

Compiled by compile.py. The parameters are a contract with the rules that start it.
"""

from typing import NamedTuple

from kfp import dsl

from pipelines.components.deploy_model.component import deploy_model
from pipelines.placement import Placement

NAME = "income-deploy"


class Outputs(NamedTuple):
    """What a run gives back."""

    url: str


def deploy(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME, description="Serves a promoted version of the model by KServe; rolls back when it cannot."
    )
    def pipeline(
        model_version: int,
        run_key: str,
        model_name: str = "income-classifier",
        model_alias: str = "champion",
        service_name: str = "",
        namespace: str = "",
        serving_bucket: str = "",
        runtime: str = "",
        service_account: str = "",
        min_replicas: int = 1,
        max_replicas: int = 0,
        cpu: str = "",
        memory: str = "",
        timeout_seconds: int = 900,
        force: bool = False,
        report_uri: str = "",
    ) -> Outputs:
        served = deploy_model(
            model_name=model_name,
            model_version=model_version,
            model_alias=model_alias,
            service_name=service_name,
            namespace=namespace,
            serving_bucket=serving_bucket,
            runtime=runtime,
            service_account=service_account,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            cpu=cpu,
            memory=memory,
            timeout_seconds=timeout_seconds,
            force=force,
            run_key=run_key,
            report_uri=report_uri,
        )
        placement.put(served, minutes=60, again=False)  # what KServe cannot serve it cannot serve a second time
        return Outputs(url=served.outputs["Output"])

    return pipeline
