"""The KFP component `register_model`."""

from typing import Any

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def register_model(
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.HTML],
    docs: dsl.Input[dsl.HTML],
    figures: dict[str, float],
    validation: dict[str, Any],
    model_name: str,
    repository: str,
    revision: str,
    reason: str,
    run_key: str,
    report_uri: str,
    promotion: str = "auto",
) -> int:
    """One version of the model in MLflow's registry for this run, however often it is executed; returns its number."""
    from pipelines.components.register_model.candidate import Left, candidate
    from pipelines.components.register_model.registry import register
    from pipelines.report import Step

    told = {"repository": repository, "commit": revision, "reason": reason, "run_key": run_key}
    left = Left(model.path, train.path, reference.path, evaluation.path, docs.path)
    with Step("income-training.register_model", run_key, report_uri) as step:
        return register(candidate(model_name, left, figures, validation, told), step, promotion)
