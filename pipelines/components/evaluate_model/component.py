"""The KFP component `evaluate_model`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def evaluate_model(
    model: dsl.Input[dsl.Model],
    test: dsl.Input[dsl.Dataset],
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
) -> dict[str, float]:
    """Accuracy, areas, ROC curve and confusion matrix on the newest labels."""
    from pipelines.components.evaluate_model.quality import HIGH, LOW, evaluate
    from pipelines.report import Step

    with Step("income-training.evaluate_model", run_key, report_uri) as step:
        quality = evaluate(model.path, test.path, step)
    for name, value in quality.figures.items():
        metrics.log_metric(name, value)
    classification.log_roc_curve(*quality.roc)
    classification.log_confusion_matrix([LOW, HIGH], quality.confusion)
    return quality.figures
