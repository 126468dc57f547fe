"""The KFP component `write_data`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def write_data(
    predictions: dsl.Input[dsl.Dataset],
    output_bucket: str,
    output_file_name: str,
    model_name: str,
    model_version: int,
    as_of: str,
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """The output object, one row per requested row in the file's order; returns its address."""
    from pipelines.components.write_data.write import Made, write
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    target = ObjectRef(output_bucket, output_file_name)
    with Step("income-batch-inference.write_data", run_key, report_uri) as step:
        coverage = write(predictions.path, target, Made(run_key, model_name, model_version, as_of), step)
    metrics.log_metric("coverage", coverage)
    return target.uri
