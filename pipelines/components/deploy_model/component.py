"""The KFP component `deploy_model`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def deploy_model(
    model_name: str,
    model_version: int,
    model_alias: str,
    service_name: str,
    namespace: str,
    serving_bucket: str,
    runtime: str,
    service_account: str,
    min_replicas: int,
    max_replicas: int,
    cpu: str,
    memory: str,
    timeout_seconds: int,
    force: bool,
    run_key: str,
    report_uri: str,
    pipeline_name: str = "income-deploy",
) -> str:
    """One version of a registered model, served by KServe; returns its address, "" when a later one is served."""
    from pipelines.components.deploy_model.cluster import Cluster
    from pipelines.components.deploy_model.deploy import Patience, deploy
    from pipelines.components.deploy_model.location import storage_uri, superseded
    from pipelines.components.deploy_model.manifest import Wanted
    from pipelines.report import Step

    with Step(f"{pipeline_name}.deploy_model", run_key, report_uri) as step:
        patience = Patience(timeout_seconds, force)
        if later := superseded(model_name, model_version, model_alias):
            step.facts["superseded"] = later
            print(f"{model_alias} is version {later} by now: nothing is deployed")
            return ""
        cluster = Cluster(namespace)
        wanted = Wanted(
            service=service_name or model_name,
            namespace=cluster.namespace,
            model=f"models:/{model_name}/{model_version}",
            storage_uri=storage_uri(model_name, model_version, serving_bucket, step),
            run_key=run_key,
            runtime=runtime,
            service_account=service_account,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            cpu=cpu,
            memory=memory,
        )
        return deploy(cluster, wanted, patience, step)
