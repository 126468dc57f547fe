"""A made-up world for scoring: people with features on MinIO, a Feast registry, a registered model, files of ids.

Used by inference.py. The Feast definitions are the demo's; the rows are drawn here, a million at a time, for the demo's
own take a minute a million. Every person has one row: 96 % of them live, 4 % older than the TTL; of the requested ids
2 % belong to nobody.
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy/demo"))
import data as demo

from service import buckets, embedded
from service.supervise import Supervisor

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BUCKET, MODEL = "bench", "income-classifier"
MILLION = 1_000_000


@dataclass(frozen=True)
class World:
    """Where all of it is; the environment of the steps says how to reach it."""

    home: Path
    people: int


@contextmanager
def world(people: int) -> Iterator[World]:
    """MinIO, filled; ends with the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        with Supervisor(home, lambda _: None) as supervisor:
            port = embedded.ports(home, ("minio",))["minio"]
            store = embedded.s3(home, port, {})
            supervisor.start(embedded.minio(home, port, []))
            buckets.make(store, [BUCKET])
            tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "FEAST_S3_ENDPOINT_URL": store.endpoint}
            os.environ.update(store.environment() | tracking)
            _fill(home, people)
            yield World(home, people)


def put(path: Path, key: str) -> None:
    """A file into the bucket, by the client that the steps use."""
    from pipelines.storage import connect  # noqa: PLC0415 - after the environment is set

    connect().fput_object(bucket_name=BUCKET, object_name=key, file_path=str(path))


def ids(world: World, rows: int) -> str:
    """The key of a CSV file of so many ids in no order, all different as long as the people suffice."""
    random = np.random.default_rng(rows)
    chosen = random.permutation(world.people)[: rows - rows // 50]
    chosen = np.resize(chosen, rows - rows // 50) + demo.FIRST_ID
    nobody = np.arange(rows // 50) + demo.FIRST_ID + world.people
    path = world.home / f"ids-{rows}.csv"
    frame = pd.DataFrame({"user_id": random.permutation(np.concatenate([chosen, nobody]))})
    frame.to_csv(path, index=False)
    put(path, path.name)
    path.unlink()
    return path.name


def _fill(home: Path, people: int) -> None:
    path = home / "adult.parquet"
    with pq.ParquetWriter(path, demo.COLUMNS, compression="zstd") as writer:
        for start in range(0, people, MILLION):
            writer.write_table(_people(start, min(MILLION, people - start)))
    put(path, "adult.parquet")
    config = demo.feature_store_yaml(BUCKET)
    (home / "feature_store.yaml").write_text(config)
    put(home / "feature_store.yaml", "feature_store.yaml")
    demo.apply_registry(config, f"s3://{BUCKET}/adult.parquet")
    _register(home, pq.ParquetFile(path).read_row_group(0).slice(0, 50_000))
    path.unlink()


def _people(start: int, count: int) -> pa.Table:
    random = np.random.default_rng(start)
    numbers = np.arange(start, start + count)
    ages = np.where(numbers % 25 == 0, random.integers(200, 400, count), random.integers(1, 30, count))
    education = random.choice(list(demo.EDUCATION), count)
    years = {name: year for name, (year, _) in demo.EDUCATION.items()}
    columns = {
        "user_id": numbers + demo.FIRST_ID,
        "event_timestamp": pd.Timestamp(NOW) - pd.to_timedelta(ages, unit="D"),
        "age": random.integers(17, 90, count),
        "workclass": random.choice(list(demo.WORKCLASS), count),
        "education": education,
        "education_num": pd.Series(education).map(years).to_numpy(),
        "marital_status": random.choice(list(demo.MARITAL), count),
        "occupation": random.choice(list(demo.OCCUPATION), count),
        "hours_per_week": random.integers(1, 99, count),
        "capital_gain": np.where(random.random(count) < 0.08, random.gamma(2, 5_000, count), 0).round(2),
        "capital_loss": np.where(random.random(count) < 0.05, random.normal(1_870, 350, count), 0).round(2),
    }
    return pa.Table.from_pandas(pd.DataFrame(columns), schema=demo.COLUMNS, preserve_index=False)


def _register(home: Path, rows: pa.Table) -> None:
    """The demo's first model, fitted on some of the people, with the reference that drift is measured against."""
    import mlflow  # noqa: PLC0415 - three seconds, and only here
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types.schema import ColSpec, Schema  # noqa: PLC0415
    from model_repo.v1.model import build  # noqa: PLC0415

    from pipelines.sketch import reference_of  # noqa: PLC0415

    frame = rows.to_pandas().drop(columns=["user_id", "event_timestamp"])
    score = frame["education_num"] + frame["age"] / 10 + np.random.default_rng(1).normal(0, 3, len(frame))
    estimator = build({}).fit(frame, np.where(score > score.quantile(0.75), ">50K", "<=50K"))
    folder = home / "model"
    kinds = {"int64": "long", "double": "double", "string": "string"}
    columns = [ColSpec(kinds[str(demo.COLUMNS.field(name).type)], name) for name in frame.columns]
    mlflow.sklearn.save_model(
        estimator, str(folder), signature=ModelSignature(inputs=Schema(columns)), serialization_format="skops",
        pip_requirements=["scikit-learn"],
        skops_trusted_types=["builtins.object", "sklearn.compose._column_transformer.make_column_selector"],
    )  # fmt: skip
    reference = reference_of(rows.drop_columns(["user_id", "event_timestamp"]), estimator.predict_proba(frame)[:, 1])
    (folder / "reference.json").write_text(json.dumps(reference))
    client = mlflow.MlflowClient()
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, source=folder.as_uri())


def fetched(key: str) -> bytes:
    """An object's content."""
    from pipelines.storage import connect  # noqa: PLC0415 - after the environment is set

    with connect().get_object(bucket_name=BUCKET, object_name=key) as response:
        return io.BytesIO(response.read()).getvalue()
