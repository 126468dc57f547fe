"""The KFP component `retrieve_features`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def retrieve_features(
    requested: dsl.Input[dsl.Dataset],
    feature_store_bucket_name: str,
    feature_store_config_file_name: str,
    feature_list: list[str],
    as_of: str,
    run_key: str,
    report_uri: str,
    features: dsl.Output[dsl.Dataset],
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Every requested row of a shard with its status and, where Feast has them, its features as of a moment."""
    from pipelines.components.retrieve_features.retrieve import Part, retrieve
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    config = ObjectRef(feature_store_bucket_name, feature_store_config_file_name)
    with Step("income-batch-inference.retrieve_features", run_key, report_uri, shard) as step:
        retrieve(config, feature_list, as_of, (requested.path, features.path), step, Part(shard, shards))
