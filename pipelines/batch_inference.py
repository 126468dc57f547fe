"""The pipeline `income-batch-inference`: a file of user ids → one prediction per requested row.

    read_data → for each shard: retrieve_features → run_inference → write_data

    whatever happens → report_failure

Compiled by compile.py. The parameters are a contract with the rules that start it. What a run gives back, the address
of the predictions, stands in its reports and in what write_data returns: KFP lets nothing out of a `dsl.ExitHandler`.
"""

from kfp import dsl

from pipelines.components.read_data.component import read_data
from pipelines.components.report_failure.component import report_failure
from pipelines.components.retrieve_features.component import retrieve_features
from pipelines.components.run_inference.component import run_inference
from pipelines.components.write_data.component import write_data
from pipelines.placement import Placement

NAME = "income-batch-inference"
FEATURES = ["income_v1"]  # a feature service: the contract between model and features
NO_COLUMNS: list[str] = []
MINUTES = 60  # for a step that reads or writes one object


def batch_inference(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME, description="Scores the users of a file: features from Feast as of a moment, a model from MLflow."
    )
    def pipeline(
        entity_df_bucket: str,
        entity_df_filename: str,
        output_file_name: str,
        as_of: str,
        run_key: str,
        entity_df_version: str = "",
        entity_df_etag: str = "",
        as_of_column: str = "",
        feature_store_bucket_name: str = "features",
        feature_store_config_file_name: str = "feature_store.yaml",
        feature_list: list[str] = FEATURES,
        model_name: str = "income-classifier",
        model_type: str = "",
        model_version: int = 0,
        model_alias: str = "",
        output_bucket: str = "predictions",
        keep_columns: list[str] = NO_COLUMNS,
        keep_features: bool = False,
        shards: int = 1,
        report_uri: str = "",
    ) -> None:
        failure = report_failure(pipeline_name=NAME, run_key=run_key, report_uri=report_uri)
        with dsl.ExitHandler(failure, name="scoring"):
            asked = read_data(
                entity_df_bucket=entity_df_bucket,
                entity_df_filename=entity_df_filename,
                entity_df_version=entity_df_version,
                entity_df_etag=entity_df_etag,
                as_of_column=as_of_column,
                keep_columns=keep_columns,
                shards=shards,
                run_key=run_key,
                report_uri=report_uri,
            )
            with dsl.ParallelFor(asked.outputs["Output"], name="shards") as shard:
                features = retrieve_features(
                    requested=asked.outputs["requested"],
                    feature_store_bucket_name=feature_store_bucket_name,
                    feature_store_config_file_name=feature_store_config_file_name,
                    feature_list=feature_list,
                    as_of=as_of,
                    shard=shard,
                    shards=shards,
                    run_key=run_key,
                    report_uri=report_uri,
                )
                scored = run_inference(
                    features=features.outputs["features"],
                    model_name=model_name,
                    model_version=model_version,
                    model_alias=model_alias,
                    model_type=model_type,
                    keep_features=keep_features,
                    shard=shard,
                    run_key=run_key,
                    report_uri=report_uri,
                )
            written = write_data(
                requested=asked.outputs["requested"],
                predictions=dsl.Collected(scored.outputs["predictions"]),
                sketches=dsl.Collected(scored.outputs["sketch"]),
                output_bucket=output_bucket,
                output_file_name=output_file_name,
                as_of=as_of,
                run_key=run_key,
                report_uri=report_uri,
            )
        for task in (failure, asked, written):
            placement.put(task, minutes=MINUTES)
        for task in (features, scored):
            placement.put(task)

    return pipeline
