"""The KFP component `validate_data`."""

from typing import Any

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def validate_data(
    train: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    suite_uri: str,
    run_key: str,
    report_uri: str,
    docs: dsl.Output[dsl.HTML],
    pipeline_name: str = "income-training",
) -> dict[str, Any]:
    """Training and test set, held to the expectations that lie in the bucket; one that fails ends the run."""
    from pipelines.components.validate_data.validate import validate
    from pipelines.report import Step

    with Step(f"{pipeline_name}.validate_data", run_key, report_uri) as step:
        return validate((train.path, test.path), suite_uri, docs.path, step)
