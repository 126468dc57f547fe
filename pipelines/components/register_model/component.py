"""The KFP component `register_model`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def register_model(
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    figures: dict[str, float],
    model_name: str,
    repository: str,
    revision: str,
    reason: str,
    run_key: str,
    report_uri: str,
) -> int:
    """One version of the model in MLflow's registry for this run, however often it is executed; returns its number."""
    from pipelines.components.register_model.candidate import candidate
    from pipelines.components.register_model.registry import register
    from pipelines.report import Step

    told = {"repository": repository, "commit": revision, "reason": reason, "run_key": run_key}
    with Step("income-training.register_model", run_key, report_uri) as step:
        return register(candidate(model_name, (model.path, train.path), figures, told), step)
