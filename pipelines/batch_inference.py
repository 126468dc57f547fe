"""The pipeline `income-batch-inference`: a file of user ids → one prediction per requested row.

    read_data → retrieve_features → run_inference → write_data

Compiled by compile.py. The parameters are a contract with the rules that start it.
"""

from typing import NamedTuple

from kfp import dsl

from pipelines.components.read_data.component import read_data
from pipelines.components.retrieve_features.component import retrieve_features
from pipelines.components.run_inference.component import run_inference
from pipelines.components.write_data.component import write_data
from pipelines.placement import Placement

NAME = "income-batch-inference"
FEATURES = ["income_v1"]  # a feature service: the contract between model and features


class Outputs(NamedTuple):
    """What a run gives back."""

    predictions: str


def batch_inference(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME, description="Scores the users of a file: features from Feast as of a moment, a model from MLflow."
    )
    def pipeline(
        entity_df_bucket: str,
        entity_df_filename: str,
        output_file_name: str,
        model_version: int,
        as_of: str,
        run_key: str,
        entity_df_version: str = "",
        entity_df_etag: str = "",
        feature_store_bucket_name: str = "features",
        feature_store_config_file_name: str = "feature_store.yaml",
        feature_list: list[str] = FEATURES,
        model_name: str = "income-classifier",
        model_type: str = "sklearn",
        output_bucket: str = "predictions",
        report_uri: str = "",
    ) -> Outputs:
        requested = read_data(
            entity_df_bucket=entity_df_bucket,
            entity_df_filename=entity_df_filename,
            entity_df_version=entity_df_version,
            entity_df_etag=entity_df_etag,
            run_key=run_key,
            report_uri=report_uri,
        )
        features = retrieve_features(
            requested=requested.outputs["requested"],
            feature_store_bucket_name=feature_store_bucket_name,
            feature_store_config_file_name=feature_store_config_file_name,
            feature_list=feature_list,
            as_of=as_of,
            run_key=run_key,
            report_uri=report_uri,
        )
        predictions = run_inference(
            features=features.outputs["features"],
            model_name=model_name,
            model_version=model_version,
            model_type=model_type,
            run_key=run_key,
            report_uri=report_uri,
        )
        written = write_data(
            predictions=predictions.outputs["predictions"],
            output_bucket=output_bucket,
            output_file_name=output_file_name,
            model_name=model_name,
            model_version=model_version,
            as_of=as_of,
            run_key=run_key,
            report_uri=report_uri,
        )
        for task in (requested, features, predictions, written):
            placement.put(task)
        return Outputs(predictions=written.outputs["Output"])

    return pipeline
