"""The demo's people: seeded, in the shape of the Adult census table, and written to a bucket as Feast wants them.

Called by the demo (`python deploy/demo/data.py` fills the bucket named in --bucket) and by the tests, which load it
by path. It knows nothing of the pipelines: what they read is only what lies in the bucket afterwards.

Who is in it, of 20,000 people (`Population.size`), by the last digits of their number:

| share | who | what Feast says at `now` |
| --- | --- | --- |
| 94 % | a snapshot about every 30 days, the last at most 30 days old | features |
| 4 % | the last snapshot is 200 to 400 days old | older than the TTL of 60 days |
| 2 % | the first snapshot lies 1 to 30 days ahead | only later than now |

Marginals (of a live snapshot): age 17 to 90 about 39; 70 % in private employment; education_num 1 to 16 about 10; 46
% married; hours_per_week 1 to 99 about 40; capital_gain above zero for 8 %, capital_loss for 5 %. Income follows a
logistic score of education, age, hours, marriage, occupation and capital gain: close to a quarter earn more than 50K,
and a linear model reaches an AUC near 0.9.
"""

import argparse
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from minio import Minio

PROJECT, SERVICE, VIEW = "income", "income_v1", "adult"
TTL = timedelta(days=60)
FIRST_ID = 1_000_001
NEVER_SEEN = 9_000_001  # ids from here on belong to nobody
SNAPSHOTS = 4

WORKCLASS = {"Private": 0.70, "Self-emp": 0.11, "Government": 0.13, "Unemployed": 0.06}
EDUCATION = {  # years of schooling stand beside the name, as in the original table
    "Some-HS": (7, 0.13), "HS-grad": (9, 0.32), "Some-college": (10, 0.22), "Associate": (12, 0.08),
    "Bachelors": (13, 0.17), "Masters": (14, 0.06), "Doctorate": (16, 0.02),
}  # fmt: skip
MARITAL = {"Married": 0.46, "Never-married": 0.33, "Divorced": 0.17, "Widowed": 0.04}
OCCUPATION = {
    "Craft": 0.17, "Professional": 0.17, "Managerial": 0.14, "Clerical": 0.13,
    "Sales": 0.12, "Service": 0.16, "Transport": 0.11,
}  # fmt: skip
OCCUPATION_SCORE = {"Professional": 0.7, "Managerial": 0.9, "Sales": 0.2, "Service": -0.8}

COLUMNS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("age", pa.int64()),
        ("workclass", pa.string()),
        ("education", pa.string()),
        ("education_num", pa.int64()),
        ("marital_status", pa.string()),
        ("occupation", pa.string()),
        ("hours_per_week", pa.int64()),
        ("capital_gain", pa.float64()),
        ("capital_loss", pa.float64()),
    ]
)
LABELS = pa.schema(
    [("user_id", pa.int64()), ("event_timestamp", pa.timestamp("us", tz="UTC")), ("income", pa.string())]
)


@dataclass(frozen=True)
class Population:
    """People at a moment: the same `seed`, `now` and `size` give the same bytes."""

    now: datetime
    size: int = 20_000
    seed: int = 20261121


def kinds(people: Population) -> dict[str, np.ndarray]:
    """The ids by what Feast knows of them at `now`: live, past (expired) and future."""
    ids = np.arange(FIRST_ID, FIRST_ID + people.size, dtype=np.int64)
    digits = ids % 50
    return {"past": ids[digits < 2], "future": ids[digits == 2], "live": ids[digits > 2]}


def features(people: Population) -> pa.Table:
    """Every snapshot of everybody, in order of time; no person has two at one moment."""
    random = np.random.default_rng(people.seed)
    groups = [
        _snapshots(ids, _moments(kind, len(ids), people.now, random), random) for kind, ids in kinds(people).items()
    ]
    frame = pd.concat(groups).sort_values(["event_timestamp", "user_id"], kind="stable")
    return pa.Table.from_pandas(frame, schema=COLUMNS, preserve_index=False)


def labels(people: Population, table: pa.Table | None = None) -> pa.Table:
    """What each person earned, learned one to nine days after a snapshot; nothing later than `now`."""
    frame = (features(people) if table is None else table).to_pandas()
    random = np.random.default_rng(people.seed + 1)
    chance = 1 / (1 + np.exp(-log_odds(frame)))
    frame["income"] = np.where(random.random(len(frame)) < chance, ">50K", "<=50K")
    frame["event_timestamp"] += pd.to_timedelta(random.integers(86_400, 9 * 86_400, len(frame)), unit="s")
    known = frame[frame["event_timestamp"] <= people.now].sort_values(["event_timestamp", "user_id"], kind="stable")
    return pa.Table.from_pandas(known[LABELS.names], schema=LABELS, preserve_index=False)


def requested_csv(people: Population, rows: int = 5_000) -> bytes:
    """A file of ids to score: `rows` requested rows, in UTF-8 with a byte order mark and CRLF.

    One line is blank, which is no requested row, and one id is not a number.
    2 % belong to nobody, 3 % are expired, 1 % have only a future; 2 % of the rest stand there twice.
    """
    random = np.random.default_rng(people.seed + 2)
    known = kinds(people)
    unknown, past, future, twice = rows // 50, rows * 3 // 100, rows // 100, rows // 50
    live = random.choice(known["live"], rows - unknown - past - future - twice - 1, replace=False)
    chosen = np.concatenate(
        [
            live,
            live[:twice],
            random.choice(known["past"], past, replace=False),
            random.choice(known["future"], future, replace=False),
            np.arange(NEVER_SEEN, NEVER_SEEN + unknown),
        ]
    )
    random.shuffle(chosen)
    lines = ["user_id,campaign", *(f"{number},autumn" for number in chosen)]
    lines.insert(rows // 2, "")
    lines.insert(rows // 3, "not-a-number,autumn")
    return ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()


def _moments(kind: str, people: int, now: datetime, random: np.random.Generator) -> np.ndarray:
    """One column a person, one row a snapshot: whole seconds, 25 to 35 days apart, newest first."""
    newest_days = {"live": (0, 30), "past": (200, 400), "future": (-30, -1)}[kind]
    newest = random.integers(newest_days[0] * 86_400 + 1, newest_days[1] * 86_400, people)
    count = 1 if kind == "future" else SNAPSHOTS
    gaps = random.integers(25 * 86_400, 35 * 86_400, (count, people))
    gaps[0] = newest
    return np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us") - np.cumsum(gaps, axis=0).astype(
        "timedelta64[s]"
    )


def _snapshots(ids: np.ndarray, moments: np.ndarray, random: np.random.Generator) -> pd.DataFrame:
    """The people's features at each moment: who they are stays, hours and capital change, all grow older."""
    frames = list(snapshot(person(ids, random), moments, random))
    return pd.concat(frames)


def person(ids: np.ndarray, random: np.random.Generator) -> pd.DataFrame:
    """What stays of everybody, a row each."""
    names = list(EDUCATION)
    education = random.choice(names, len(ids), p=[share for _, share in EDUCATION.values()])
    return pd.DataFrame(
        {
            "user_id": ids,
            "age": np.clip(random.gamma(9, 4.3, len(ids)), 17, 90).astype(np.int64),
            "workclass": _choice(WORKCLASS, len(ids), random),
            "education": education,
            "education_num": [EDUCATION[name][0] for name in education],
            "marital_status": _choice(MARITAL, len(ids), random),
            "occupation": _choice(OCCUPATION, len(ids), random),
        }
    )


def snapshot(people: pd.DataFrame, moments: np.ndarray, random: np.random.Generator) -> Iterator[pd.DataFrame]:
    """The people with what changes, as it is at each moment: a frame a moment, which is one for all or one a row."""
    for moment in moments:
        gain = np.where(random.random(len(people)) < 0.08, random.gamma(2, 5_000, len(people)), 0.0)
        loss = np.where(random.random(len(people)) < 0.05, random.normal(1_870, 350, len(people)), 0.0)
        yield people.assign(
            event_timestamp=pd.to_datetime(moment, utc=True),
            hours_per_week=np.clip(random.normal(40, 11, len(people)), 1, 99).astype(np.int64),
            capital_gain=gain.round(2),
            capital_loss=np.clip(loss, 0, None).round(2),
        )


def _choice(shares: dict[str, float], people: int, random: np.random.Generator) -> np.ndarray:
    return random.choice(list(shares), people, p=list(shares.values()))


def log_odds(frame: pd.DataFrame) -> np.ndarray:
    """The log-odds of earning more than 50K: linear but for age, which stops helping at 50."""
    occupation = frame["occupation"].map(OCCUPATION_SCORE).fillna(0.0)
    score = (
        -3.65
        + 0.45 * (frame["education_num"] - 10)
        + 0.07 * (np.minimum(frame["age"], 50) - 35)
        + 0.05 * (frame["hours_per_week"] - 40)
        + 2.6 * (frame["marital_status"] == "Married")
        + occupation
        + np.minimum(frame["capital_gain"] / 4_000, 4.0)
    )
    return score.to_numpy()


def write_feature_store(client: Minio, bucket: str, people: Population) -> None:
    """Puts features, labels and feature_store.yaml into the bucket and registers view and service with Feast."""
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    table = features(people)
    put(client, bucket, "adult.parquet", parquet(table))
    put(client, bucket, "labels.parquet", parquet(labels(people, table)))
    config = feature_store_yaml(bucket)
    put(client, bucket, "feature_store.yaml", config.encode())
    apply_registry(config, f"s3://{bucket}/adult.parquet")


def feature_store_yaml(bucket: str) -> str:
    """Feast's configuration: no endpoint and no credential in it, those are the reader's environment."""
    return (
        f"project: {PROJECT}\nprovider: local\nregistry: s3://{bucket}/registry.db\n"
        "offline_store:\n  type: duckdb\nonline_store: null\nentity_key_serialization_version: 3\n"
    )


def apply_registry(config: str, source: str) -> None:
    """Registers entity, view and service; Feast's S3 registry looks at FEAST_S3_ENDPOINT_URL only."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        os.environ.setdefault("FEAST_S3_ENDPOINT_URL", endpoint)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    from feast import FeatureStore  # noqa: PLC0415 - five seconds, and not needed to make the data

    with TemporaryDirectory() as folder:
        path = Path(folder, "feature_store.yaml")
        path.write_text(config)
        FeatureStore(fs_yaml_file=path).apply(definitions(source))


def definitions(source: str) -> list[Any]:
    """Entity `user`, view `adult`, service `income_v1`, with every type said:

    Feast then reads no file to infer them.
    """
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType  # noqa: PLC0415 - as above
    from feast.data_format import ParquetFormat  # noqa: PLC0415
    from feast.types import from_value_type  # noqa: PLC0415

    types = {"int64": ValueType.INT64, "string": ValueType.STRING, "double": ValueType.DOUBLE}
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name=VIEW,
        entities=[user],
        ttl=TTL,
        schema=[
            Field(name=column.name, dtype=from_value_type(types[str(column.type)]))
            for column in COLUMNS
            if column.name != "event_timestamp"
        ],
        source=FileSource(path=source, timestamp_field="event_timestamp", file_format=ParquetFormat()),
        online=False,
    )
    return [user, view, FeatureService(name=SERVICE, features=[view])]


def parquet(table: pa.Table) -> bytes:
    """The table as a file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def put(client: Minio, bucket: str, key: str, content: bytes) -> None:
    """The content as an object."""
    client.put_object(bucket, key, io.BytesIO(content), len(content))


def object_store() -> Minio:
    """The one that the environment names."""
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    return Minio(
        endpoint=endpoint.netloc,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        secure=endpoint.scheme == "https",
        region=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
    )


def main() -> None:
    """Fills a bucket, and writes a file of requested ids beside you if asked."""
    parser = argparse.ArgumentParser(description="Fill a bucket with the demo's features, labels and Feast registry.")
    parser.add_argument("--bucket", default="features")
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime.now(UTC), help="RFC 3339, default: now")
    parser.add_argument("--csv", type=Path, help="also write 5,000 requested ids to this file")
    chosen = parser.parse_args()
    people = Population(now=chosen.now, size=chosen.people)
    write_feature_store(object_store(), chosen.bucket, people)
    if chosen.csv:
        chosen.csv.write_bytes(requested_csv(people))


if __name__ == "__main__":
    main()
