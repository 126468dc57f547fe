"""The weeks of `make demo-loop`: seeded people of the demo's shape, new ones every week, in a world that changes.

Week 0 is history, which the first model learns from; weeks 1 to `World.weeks` each bring a file. From two weeks on
something else is true, and stays true:

- from week 5, `hours_per_week` arrives as hours a month: the column's sender has changed its unit. What people earn has
  not changed. Everybody can see it, from the features alone.
- from week 10, being married, which helped, hinders. The features look as before: nobody can see it until labels come.

Nothing here knows of the service or of the pipelines. `python deploy/loop/weeks.py` puts week 0 into a bucket and makes
Feast's registry; the weeks after it are put by `play`. `oracle` and the tests read the same people from memory.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

sys.path.append(str(Path(__file__).parents[1] / "demo"))  # the demo's scripts are no package either

import data

HOURS_A_MONTH = 52 / 12  #: for one hour a week
FEATURE_STORE, LABELS, INCOMING = "feature-store", "labels", "user-ids"  #: the buckets


@dataclass(frozen=True)
class World:
    """The same values give the same people, week by week."""

    seed: int = 1
    weeks: int = 14
    rows: int = 3_000  #: people a week; as many as the rules train with, so that a training is of one week
    changes: bool = True  #: False: nothing ever changes
    unit_from: int = 5
    concept_from: int = 10

    def people(self, week: int) -> pd.DataFrame:
        """Everybody of a week: `user_id`, the features as they arrive, and the `income` that they turn out to have."""
        random = np.random.default_rng([self.seed, week])
        ids = np.arange(self.rows, dtype=np.int64) + data.FIRST_ID + week * self.rows
        nowhen = np.array([np.datetime64("1970-01-01")])
        frame = next(data.snapshot(data.person(ids, random), nowhen, random)).drop(columns="event_timestamp")
        odds = data.log_odds(frame)
        if self.changes and week >= self.concept_from:
            odds = odds + 2.4 - 4.6 * (frame["marital_status"] == "Married").to_numpy()  # about as many above 50K
        if self.changes and week >= self.unit_from:
            frame["hours_per_week"] = (frame["hours_per_week"] * HOURS_A_MONTH).round().astype(np.int64)
        frame["income"] = np.where(random.random(len(frame)) < 1 / (1 + np.exp(-odds)), ">50K", "<=50K")
        return frame

    def features(self, week: int, seen: datetime) -> pa.Table:
        """What Feast is given of them, all seen at one moment."""
        frame = self.people(week).assign(event_timestamp=pd.Timestamp(seen))
        return pa.Table.from_pandas(frame[data.COLUMNS.names], schema=data.COLUMNS, preserve_index=False)

    def labels(self, week: int, learned: datetime) -> pa.Table:
        """What they turned out to earn, learned one after the other up to a moment: a microsecond each."""
        frame = self.people(week)
        back = pd.to_timedelta(np.arange(self.rows, dtype=np.int64)[::-1], unit="us")
        frame["event_timestamp"] = pd.Timestamp(learned) - back
        return pa.Table.from_pandas(frame[data.LABELS.names], schema=data.LABELS, preserve_index=False)

    def ids(self, week: int) -> bytes:
        """The week's file: whom to score."""
        return b"user_id\n" + b"".join(b"%d\n" % number for number in self.people(week)["user_id"])


def features_key(week: int) -> str:
    """In the bucket `feature-store`: a file a week, so that none is replaced while somebody reads it."""
    return f"adult/week-{week:02}.parquet"


def labels_key(week: int) -> str:
    """In the bucket `labels`."""
    return f"income/week-{week:02}.parquet"


def ids_key(week: int) -> str:
    """In the bucket `user-ids`."""
    return f"incoming/week-{week:02}.csv"


def main() -> None:
    """Week 0, and a Feast registry whose view reads all weeks; the object store is the environment's."""
    parser = argparse.ArgumentParser(description="Put the loop's week 0 and its Feast registry into their buckets.")
    parser.add_argument("--seed", type=int, default=World.seed)
    parser.add_argument("--rows", type=int, default=World.rows)
    chosen = parser.parse_args()
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    store, world, now = data.object_store(), World(seed=chosen.seed, rows=chosen.rows), datetime.now(UTC)
    config = data.feature_store_yaml(FEATURE_STORE)
    for bucket, key, content in (
        (FEATURE_STORE, features_key(0), data.parquet(world.features(0, now))),
        (FEATURE_STORE, "feature_store.yaml", config.encode()),
        (LABELS, labels_key(0), data.parquet(world.labels(0, datetime.now(UTC)))),
    ):
        data.put(store, bucket, key, content)
    data.apply_registry(config, f"s3://{FEATURE_STORE}/adult/*.parquet")


if __name__ == "__main__":
    main()
