"""The KFP component `write_data`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def write_data(
    requested: dsl.Input[dsl.Dataset],
    predictions: dsl.Input[list[dsl.Dataset]],
    sketches: dsl.Input[list[dsl.Dataset]],
    output_bucket: str,
    output_file_name: str,
    as_of: str,
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """The output object, one row per requested row in the file's order, whatever the shards; returns its address."""
    from pipelines.components.write_data.write import Parts, write
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    parts = Parts(requested.path, [part.path for part in predictions], [part.path for part in sketches])
    target = ObjectRef(output_bucket, output_file_name)
    with Step("income-batch-inference.write_data", run_key, report_uri) as step:
        coverage = write(parts, target, run_key, as_of, step)
    metrics.log_metric("coverage", coverage)
    return target.uri
