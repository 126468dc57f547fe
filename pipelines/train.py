"""The pipeline `income-training`: a commit of a model repository → a version in MLflow's registry, and a verdict on it.

    checkout_code ────────────────┐
    prepare_data → validate_data ─┴→ train_model → evaluate_model → register_model → compare_models

    whatever happens → report_failure

Compiled by compile.py. The parameters are a contract with the rules that start it. What a run gives back, the number
of the version and the verdict, stands in its reports and in what register_model and compare_models return: KFP lets
nothing out of a `dsl.ExitHandler`.
"""

from kfp import dsl

from pipelines.components.checkout_code.component import checkout_code
from pipelines.components.compare_models.component import compare_models
from pipelines.components.evaluate_model.component import evaluate_model
from pipelines.components.prepare_data.component import prepare_data
from pipelines.components.register_model.component import register_model
from pipelines.components.report_failure.component import report_failure
from pipelines.components.train_model.component import train_model
from pipelines.components.validate_data.component import validate_data
from pipelines.placement import Placement

NAME = "income-training"
FEATURES = ["income_v1"]  # a feature service: the contract between model and features
NO_SLICES: list[str] = []
MINUTES = 15  # for a step that reads or writes little


def train(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME,
        description="Trains the model of a repository's commit on the labels of a window, registers it, and compares "
        "it with the champion.",
    )
    def pipeline(
        repository: str,
        revision: str,
        as_of: str,
        run_key: str,
        since: str = "",
        labels_uri: str = "s3://features/labels.parquet",
        newest: int = 0,
        test_share: float = 0.2,
        feature_store_bucket_name: str = "features",
        feature_store_config_file_name: str = "feature_store.yaml",
        feature_list: list[str] = FEATURES,
        suite_uri: str = "",
        model_name: str = "income-classifier",
        metric: str = "auc",
        margin: float = 0.0,
        slices: list[str] = NO_SLICES,
        slice_margin: float = 0.02,
        confidence: float = 0.0,
        promotion: str = "auto",
        reason: str = "",
        report_uri: str = "",
    ) -> None:
        failure = report_failure(pipeline_name=NAME, run_key=run_key, report_uri=report_uri)
        with dsl.ExitHandler(failure, name="training"):
            code = checkout_code(repository=repository, revision=revision, run_key=run_key, report_uri=report_uri)
            data = prepare_data(
                labels_uri=labels_uri,
                since=since,
                as_of=as_of,
                newest=newest,
                test_share=test_share,
                feature_store_bucket_name=feature_store_bucket_name,
                feature_store_config_file_name=feature_store_config_file_name,
                feature_list=feature_list,
                run_key=run_key,
                report_uri=report_uri,
            )
            valid = validate_data(
                train=data.outputs["train"],
                test=data.outputs["test"],
                suite_uri=suite_uri,
                run_key=run_key,
                report_uri=report_uri,
            )
            model = train_model(
                code=code.outputs["code"],
                train=data.outputs["train"],
                slices=slices,
                run_key=run_key,
                report_uri=report_uri,
            ).after(valid)  # nothing is fitted on data that failed
            quality = evaluate_model(
                model=model.outputs["model"],
                train=data.outputs["train"],
                test=data.outputs["test"],
                slices=slices,
                model_name=model_name,
                revision=revision,
                run_key=run_key,
                report_uri=report_uri,
            )
            version = register_model(
                model=model.outputs["model"],
                train=data.outputs["train"],
                reference=quality.outputs["reference"],
                evaluation=quality.outputs["report"],
                docs=valid.outputs["docs"],
                figures=quality.outputs["Output"],
                validation=valid.outputs["Output"],
                model_name=model_name,
                repository=repository,
                revision=revision,
                reason=reason,
                promotion=promotion,
                run_key=run_key,
                report_uri=report_uri,
            )
            verdict = compare_models(
                model=model.outputs["model"],
                test=data.outputs["test"],
                candidate=version.outputs["Output"],
                model_name=model_name,
                metric=metric,
                margin=margin,
                slices=slices,
                slice_margin=slice_margin,
                confidence=confidence,
                promotion=promotion,
                run_key=run_key,
                report_uri=report_uri,
            )
        placement.put(code, minutes=MINUTES, cached=True)  # a full sha names its content
        placement.put(data)
        placement.put(valid, again=False)
        placement.put(model, again=False)
        placement.put(quality, again=False)
        placement.put(version, minutes=MINUTES)
        placement.put(verdict)
        placement.put(failure, minutes=MINUTES)

    return pipeline
