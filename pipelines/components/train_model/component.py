"""The KFP component `train_model`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def train_model(
    code: dsl.Input[dsl.Artifact],
    train: dsl.Input[dsl.Dataset],
    run_key: str,
    report_uri: str,
    model: dsl.Output[dsl.Model],
    slices: list[str] = [],  # noqa: B006 - KFP reads it, nobody writes to it
) -> None:
    """The repository's estimator fitted on the training set, in MLflow's format."""
    from pipelines.components.train_model.fit import train as fit_and_save
    from pipelines.report import Step

    with Step("income-training.train_model", run_key, report_uri) as step:
        fit_and_save(code.path, train.path, model.path, step, slices)
