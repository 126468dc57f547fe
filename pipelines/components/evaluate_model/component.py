"""The KFP component `evaluate_model`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def evaluate_model(
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    slices: list[str],
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    reference: dsl.Output[dsl.Artifact],
    model_name: str = "",
    revision: str = "",
) -> dict[str, float]:
    """Figures, curves and a report of a model on the newest labels, and the reference that its scorings are held to."""
    from pipelines.components.evaluate_model.evaluate import CLASSES, evaluate, leave
    from pipelines.report import Step

    with Step("income-training.evaluate_model", run_key, report_uri) as step:
        told = {"model": model_name, "commit": revision}
        found = evaluate(model.path, (train.path, test.path), slices, step)
        leave(found, told, (report.path, reference.path), step)
    for name, value in found.figures.items():
        metrics.log_metric(name, value)
    classification.log_roc_curve(*found.quality.roc)
    classification.log_confusion_matrix(CLASSES, found.quality.confusion)
    return found.figures
