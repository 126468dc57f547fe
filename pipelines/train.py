"""The pipeline `income-training`: a commit of a model repository → a version in MLflow's registry.

    checkout_code ─┐
    prepare_data ──┴→ train_model → evaluate_model → register_model

Compiled by compile.py. The parameters are a contract with the rules that start it.
"""

from typing import NamedTuple

from kfp import dsl

from pipelines.components.checkout_code.component import checkout_code
from pipelines.components.evaluate_model.component import evaluate_model
from pipelines.components.prepare_data.component import prepare_data
from pipelines.components.register_model.component import register_model
from pipelines.components.train_model.component import train_model
from pipelines.placement import Placement

NAME = "income-training"
FEATURES = ["income_v1"]  # a feature service: the contract between model and features


class Outputs(NamedTuple):
    """What a run gives back."""

    model_version: int


def train(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME, description="Trains the model of a repository's commit on the labels of a window and registers it."
    )
    def pipeline(
        repository: str,
        revision: str,
        as_of: str,
        run_key: str,
        since: str = "",
        labels_uri: str = "s3://features/labels.parquet",
        feature_store_bucket_name: str = "features",
        feature_store_config_file_name: str = "feature_store.yaml",
        feature_list: list[str] = FEATURES,
        model_name: str = "income-classifier",
        reason: str = "",
        report_uri: str = "",
    ) -> Outputs:
        code = checkout_code(repository=repository, revision=revision, run_key=run_key, report_uri=report_uri)
        data = prepare_data(
            labels_uri=labels_uri,
            since=since,
            as_of=as_of,
            feature_store_bucket_name=feature_store_bucket_name,
            feature_store_config_file_name=feature_store_config_file_name,
            feature_list=feature_list,
            run_key=run_key,
            report_uri=report_uri,
        )
        model = train_model(
            code=code.outputs["code"], train=data.outputs["train"], run_key=run_key, report_uri=report_uri
        )
        quality = evaluate_model(
            model=model.outputs["model"], test=data.outputs["test"], run_key=run_key, report_uri=report_uri
        )
        version = register_model(
            model=model.outputs["model"],
            train=data.outputs["train"],
            figures=quality.outputs["Output"],
            model_name=model_name,
            repository=repository,
            revision=revision,
            reason=reason,
            run_key=run_key,
            report_uri=report_uri,
        )
        for task in (code, data, model, quality, version):
            placement.put(task)
        return Outputs(model_version=version.outputs["Output"])

    return pipeline
