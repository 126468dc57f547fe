"""The pipeline `wine-training`: a table in a bucket → a model in a bucket and in MLflow, and served if asked for.

    fetch_wine → validate_data → train_forest → evaluate_forest → publish_model → deploy_model

    python examples/wine/pipeline.py OUT [--image REF]

A pipeline outside of the image: its own steps carry their code in the package, the others are those of the image.
"""

import argparse
import sys
from pathlib import Path

from kfp import dsl

sys.path.insert(0, str(Path(__file__).parent))

from components import evaluate_forest, fetch_wine, publish_model, train_forest

from pipelines.compile import compile_pipelines
from pipelines.components.deploy_model.component import deploy_model
from pipelines.components.validate_data.component import validate_data
from pipelines.placement import IMAGE, RETRIES, Placement

NAME = "wine-training"


def wine_training(placement: Placement) -> dsl.base_component.BaseComponent:
    """The pipeline, placed."""

    @dsl.pipeline(name=NAME, description="Trains a random forest on a table of wines, validated by Great Expectations.")  # type: ignore[untyped-decorator]  # kfp has no types
    def pipeline(
        bucket: str,
        key: str,
        run_key: str,
        version: str = "",
        etag: str = "",
        label: str = "cultivar",
        suite_uri: str = "",
        trees: int = 100,
        model_name: str = "wine-classifier",
        output_bucket: str = "wine",
        deploy: bool = False,
        namespace: str = "",
        report_uri: str = "",
    ) -> int:
        told = {"run_key": run_key, "report_uri": report_uri}
        data = fetch_wine(bucket=bucket, key=key, version=version, etag=etag, label=label, **told)
        parts = {"train": data.outputs["train"], "test": data.outputs["test"]}
        validation = validate_data(**parts, suite_uri=suite_uri, pipeline_name=NAME, **told)
        forest = train_forest(train=parts["train"], label=label, trees=trees, **told).after(validation)
        quality = evaluate_forest(model=forest.outputs["model"], test=parts["test"], label=label, **told)
        published = publish_model(
            model=forest.outputs["model"],
            figures=quality.outputs["Output"],
            validation=validation.outputs["Output"],
            model_name=model_name,
            output_bucket=output_bucket,
            **told,
        )
        for task in (data, published):
            placement.put(task)
        for task in (validation, forest, quality):
            placement.put(task, again=False)  # what ends one of these would end it again
        with dsl.If(deploy == True, name="serve"):  # noqa: E712 - KFP reads the comparison
            served = deploy_model(
                model_name=model_name, model_version=published.outputs["Output"], model_alias="", service_name="",
                namespace=namespace, serving_bucket="", runtime="", service_account="", min_replicas=1,
                max_replicas=0, cpu="", memory="", timeout_seconds=900, force=False, pipeline_name=NAME, **told,
            )  # fmt: skip
            placement.put(served, again=False)
        return published.outputs["Output"]

    return pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the wine pipeline.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--image", default=IMAGE)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--retries", type=int, default=RETRIES, help="of a step that is lost; 0 for the local backend")
    chosen = parser.parse_args()
    for path in compile_pipelines(
        chosen.out, Placement(chosen.image, retries=chosen.retries), chosen.version, {NAME: wine_training}
    ):
        print(path)


if __name__ == "__main__":
    main()
