"""The pipeline `income-feedback`: labels that came later → how good the predictions were, by version of the model.

    score_labels

Compiled by compile.py. The parameters are a contract with the rules that start it.
"""

from typing import NamedTuple

from kfp import dsl

from pipelines.components.score_labels.component import score_labels
from pipelines.placement import Placement

NAME = "income-feedback"


class Outputs(NamedTuple):
    """What a run gives back."""

    matched: int


def feedback(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]  # kfp has no types
        name=NAME, description="Holds labels against the predictions made before them: accuracy by model version."
    )
    def pipeline(
        labels_uri: str,
        as_of: str,
        run_key: str,
        labels_version: str = "",
        labels_etag: str = "",
        predictions_bucket: str = "predictions",
        predictions_prefix: str = "",
        predictions_uri: str = "",
        since: str = "",
        model_name: str = "income-classifier",
        report_uri: str = "",
    ) -> Outputs:
        scored = score_labels(
            labels_uri=labels_uri,
            labels_version=labels_version,
            labels_etag=labels_etag,
            predictions_bucket=predictions_bucket,
            predictions_prefix=predictions_prefix,
            predictions_uri=predictions_uri,
            since=since,
            model_name=model_name,
            as_of=as_of,
            run_key=run_key,
            report_uri=report_uri,
        )
        placement.put(scored)
        return Outputs(matched=scored.outputs["Output"])

    return pipeline
