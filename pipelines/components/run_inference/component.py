"""The KFP component `run_inference`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def run_inference(
    features: dsl.Input[dsl.Dataset],
    model_name: str,
    model_version: int,
    model_type: str,
    run_key: str,
    report_uri: str,
    predictions: dsl.Output[dsl.Dataset],
    sketch: dsl.Output[dsl.Dataset],
    model_alias: str = "",
    keep_features: bool = False,
    shard: int = 0,
) -> int:
    """Class and probability of every row that has all features, by one version of a registered model; its number."""
    from pipelines.components.run_inference.score import Paths, Wanted, score
    from pipelines.report import Step

    wanted = Wanted(model_name, model_version, model_alias, model_type, keep_features)
    with Step("income-batch-inference.run_inference", run_key, report_uri, shard) as step:
        return score(wanted, Paths(features.path, predictions.path, sketch.path), step)
