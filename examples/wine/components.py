"""The wine pipeline's own steps. `validate_data` and `deploy_model` are those of the image, as they are.

A step's body holds its code: what a pipeline outside of the image brings along travels inside its package. What the
body imports must be in the image: scikit-learn, MLflow, and `pipelines`, for storage and the report.
"""

from typing import Any

from kfp import dsl

from pipelines.placement import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def fetch_wine(
    bucket: str,
    key: str,
    version: str,
    etag: str,
    label: str,
    run_key: str,
    report_uri: str,
    train: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
) -> None:
    """A Parquet table at exactly one version, split: a quarter of each class is the test."""
    import tempfile
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.model_selection import train_test_split

    from pipelines.errors import PipelineError
    from pipelines.report import Step, stored_object
    from pipelines.storage import ObjectRef, download

    with Step("wine-training.fetch_wine", run_key, report_uri) as step, tempfile.TemporaryDirectory() as folder:
        ref, path = ObjectRef(bucket, key, version, etag), Path(folder, "wine.parquet")
        stored = download(ref, path)
        try:
            table = pq.read_table(path, partitioning=None)
        except pa.ArrowInvalid as error:
            raise PipelineError(f"{ref.uri} is no Parquet file") from error
        if label not in table.column_names:
            raise PipelineError(f"{ref.uri} has no column {label}; it has {', '.join(table.column_names)}")
        step.inputs.append(stored_object(ref, stored, table.num_rows))
        classes = table.column(label).to_numpy()
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        if words := [one.name for one in table.schema if one.name != label and not any(is_(one.type) for is_ in kinds)]:
            raise PipelineError(f"{ref.uri} has columns that are no numbers: {', '.join(words)}; leave them out")
        if len(set(classes)) < 2:
            raise PipelineError(f"{ref.uri} has only one {label} in all {table.num_rows} rows: two are the least")
        if table.num_rows < 20 or min(list(classes).count(one) for one in set(classes)) < 2:
            raise PipelineError(f"{ref.uri} has {table.num_rows} rows: 20 and two of each {label} are the least")
        rows = train_test_split(range(table.num_rows), test_size=0.25, stratify=classes, random_state=0)
        for part, output in zip(rows, (train.path, test.path), strict=True):
            pq.write_table(table.take(sorted(part)), output)
        step.facts |= {"train": len(rows[0]), "test": len(rows[1])}


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def train_forest(
    train: dsl.Input[dsl.Dataset],
    label: str,
    trees: int,
    run_key: str,
    report_uri: str,
    model: dsl.Output[dsl.Model],
) -> None:
    """A random forest as a model in MLflow's format, with its signature; no pickle."""
    import mlflow
    import pyarrow.parquet as pq
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestClassifier

    from pipelines.report import Step

    with Step("wine-training.train_forest", run_key, report_uri) as step:
        frame = pq.read_table(train.path, partitioning=None).to_pandas()
        features = frame.drop(columns=label)
        forest = RandomForestClassifier(n_estimators=trees, random_state=0).fit(features, frame[label])
        mlflow.sklearn.save_model(
            forest,
            model.path,
            signature=infer_signature(features, forest.predict(features)),
            serialization_format="skops",
            skops_trusted_types=["sklearn.tree._tree.Tree"],  # what skops asks about in a forest
            pip_requirements=["mlflow", "scikit-learn", "skops", "pandas"],
        )
        step.facts |= {"rows": len(frame), "trees": trees}


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def evaluate_forest(
    model: dsl.Input[dsl.Model],
    test: dsl.Input[dsl.Dataset],
    label: str,
    run_key: str,
    report_uri: str,
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> dict[str, float]:
    """Accuracy and areas; ROC, each class against the rest, and the confusion matrix, for KFP and as a page."""
    import mlflow
    import numpy as np
    import pyarrow.parquet as pq
    from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score, roc_curve

    from pipelines.page import page, publish, table
    from pipelines.report import Step

    with Step("wine-training.evaluate_forest", run_key, report_uri) as step:
        frame = pq.read_table(test.path, partitioning=None).to_pandas()
        forest = mlflow.sklearn.load_model(model.path)
        truth, chances = frame[label].to_numpy(), forest.predict_proba(frame.drop(columns=label))
        said, names = forest.classes_[chances.argmax(axis=1)], [str(one) for one in forest.classes_]
        flags = np.stack([truth == one for one in forest.classes_], axis=1)
        figures = {"accuracy": float(accuracy_score(truth, said))}
        for place, name in enumerate(names):
            figures[f"auc_{name}"] = float(roc_auc_score(flags[:, place], chances[:, place]))
        for name, value in figures.items():
            metrics.log_metric(name, value)
        # All classes' curves in one (micro-average); the first threshold is infinite, which KFP cannot write.
        false, true, thresholds = roc_curve(flags.ravel(), chances.ravel())
        classification.log_roc_curve(false.tolist(), true.tolist(), np.clip(thresholds, 0, 1).tolist())
        matrix = confusion_matrix(truth, said, labels=forest.classes_).tolist()
        classification.log_confusion_matrix(names, matrix)
        parts = [
            f"<p>{len(frame)} wines that the forest had not seen.</p>",
            table(["figure", "value"], [(name, f"{value:.3f}") for name, value in figures.items()], numbers=1),
            "<h2>Confusion matrix</h2>",
            table(
                ["cultivar", *(f"said {one}" for one in names)], [[names[i], *row] for i, row in enumerate(matrix)], 1
            ),
        ]
        publish(page("A random forest on wine", parts), report.path, "evaluation.html", step)
        step.facts |= {"rows": len(frame), "metrics": figures}
    return figures


@dsl.component(base_image=IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]  # kfp has no types
def publish_model(
    model: dsl.Input[dsl.Model],
    figures: dict[str, float],
    validation: dict[str, Any],
    model_name: str,
    output_bucket: str,
    run_key: str,
    report_uri: str,
) -> int:
    """The model's files in the bucket, where KServe finds them, and one version in MLflow's registry for this run."""
    from pathlib import Path

    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from pipelines.report import Step, model_version, stored_object
    from pipelines.storage import ObjectRef, upload

    with Step("wine-training.publish_model", run_key, report_uri) as step:
        folder, prefix = Path(model.path), f"models/{model_name}/{run_key}"
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            ref = ObjectRef(output_bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
            step.outputs.append(stored_object(ref, upload(ref, path, {"run-key": run_key})))
        client = MlflowClient()
        # A run that is executed twice finds its version by the run key.
        found = client.search_model_versions(f"name = '{model_name}' and tags.run_key = '{run_key}'")
        if found:
            version = min(int(one.version) for one in found)
        else:
            try:
                client.create_registered_model(model_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            mlflow.set_experiment(model_name)
            with mlflow.start_run(run_name=run_key, tags={"run_key": run_key}) as run:
                mlflow.log_metrics(figures)
            tags = {"run_key": run_key, "suite": validation["suite"], "expectations": str(validation["expectations"])}
            made = client.create_model_version(
                model_name, f"s3://{output_bucket}/{prefix}", run_id=run.info.run_id, tags=tags
            )
            version = int(made.version)
        if "champion" not in client.get_registered_model(model_name).aliases:
            client.set_registered_model_alias(model_name, "champion", str(version))
        step.outputs.append(model_version(model_name, version))
        step.facts |= {"model": f"models:/{model_name}/{version}", "metrics": figures}
    return version
