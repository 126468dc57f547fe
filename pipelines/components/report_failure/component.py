"""The KFP component `report_failure`: the exit task of a `dsl.ExitHandler` around all other steps."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def report_failure(
    status: dsl.PipelineTaskFinalStatus,
    pipeline_name: str,
    run_key: str,
    report_uri: str,
) -> None:
    """What ended a run that failed, as one more report beside those of its steps. Of a run that succeeded, nothing."""
    from pipelines.components.report_failure.failure import tell

    tell(status.state, pipeline_name, run_key, report_uri)
