"""The KFP component `score_labels`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def score_labels(
    labels_uri: str,
    labels_version: str,
    labels_etag: str,
    predictions_bucket: str,
    predictions_prefix: str,
    predictions_uri: str,
    since: str,
    model_name: str,
    as_of: str,
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
) -> int:
    """How good each version's predictions were, by labels that came later; returns how many labels had one."""
    from pipelines.components.score_labels.predictions import address
    from pipelines.components.score_labels.score import Asked, score
    from pipelines.report import Step
    from pipelines.storage import ObjectRef, parse_s3

    with Step("income-feedback.score_labels", run_key, report_uri) as step:
        labels = ObjectRef(parse_s3(labels_uri).bucket, parse_s3(labels_uri).key, labels_version, labels_etag)
        predictions = predictions_uri or address(predictions_bucket, predictions_prefix)
        found = score(labels, Asked(predictions, model_name, since, as_of), step)
    for version, measures in found.measures.items():
        for name, value in measures.items():
            metrics.log_metric(f"v{version}_{name}", value)
    return found.matched
