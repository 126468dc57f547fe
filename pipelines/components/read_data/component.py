"""The KFP component `read_data`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def read_data(
    entity_df_bucket: str,
    entity_df_filename: str,
    entity_df_version: str,
    entity_df_etag: str,
    as_of_column: str,
    keep_columns: list[str],
    shards: int,
    run_key: str,
    report_uri: str,
    requested: dsl.Output[dsl.Dataset],
) -> list[int]:
    """The requested rows of a file of ids, at exactly one version; returns the numbers of the shards to cut them in."""
    from pipelines.components.read_data.columns import Asked
    from pipelines.components.read_data.read import read
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    ref = ObjectRef(entity_df_bucket, entity_df_filename, entity_df_version, entity_df_etag)
    asked = Asked(as_of_column, tuple(keep_columns))
    with Step("income-batch-inference.read_data", run_key, report_uri) as step:
        return read(ref, asked, shards, requested.path, step)
