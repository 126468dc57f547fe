"""The KFP component `prepare_data`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def prepare_data(
    labels_uri: str,
    since: str,
    as_of: str,
    feature_store_bucket_name: str,
    feature_store_config_file_name: str,
    feature_list: list[str],
    run_key: str,
    report_uri: str,
    train: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
    newest: int = 0,
    test_share: float = 0.2,
) -> None:
    """Labels of a window with the features each had at its own moment, split by time."""
    from pipelines.components.prepare_data.training_set import prepare
    from pipelines.components.prepare_data.window import window
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    config = ObjectRef(feature_store_bucket_name, feature_store_config_file_name)
    with Step("income-training.prepare_data", run_key, report_uri) as step:
        chosen = window(since, as_of, newest, test_share)
        prepare(labels_uri, chosen, (config, feature_list), (train.path, test.path), step)
