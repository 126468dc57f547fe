"""The KFP component `compare_models`."""

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def compare_models(
    model: dsl.Input[dsl.Model],
    test: dsl.Input[dsl.Dataset],
    candidate: int,
    model_name: str,
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
    comparison: dsl.Output[dsl.HTML],
    metric: str = "auc",
    margin: float = 0.0,
    slices: list[str] = [],  # noqa: B006 - KFP reads it, nobody writes to it
    slice_margin: float = 0.02,
    confidence: float = 0.0,
    promotion: str = "auto",
) -> str:
    """Candidate and champion on the same hold-out: promote, refuse, ask, never, or first. Moves no alias."""
    from pipelines.components.compare_models.compare import Candidate, compare
    from pipelines.components.compare_models.rule import Rule
    from pipelines.report import Step

    with Step("income-training.compare_models", run_key, report_uri) as step:
        rule = Rule(metric, margin, tuple(slices), slice_margin, confidence, promotion)
        verdict = compare(Candidate(model_name, candidate, model.path), test.path, rule, comparison.path, step)
    for name, value in verdict.figures.items():
        metrics.log_metric(name, value)
    return verdict.word
