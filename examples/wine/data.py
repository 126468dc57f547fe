"""scikit-learn's wine data as one Parquet object, and the suite of expectations beside it: what a sender would drop.

    python examples/wine/data.py [--bucket wine] [--rows 178] [--break]

Where and as whom: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. `--break` spoils the data, so that the
expectations do not hold.
"""

import argparse
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_wine

from pipelines.storage import connect

KEY, SUITE = "data/wine.parquet", "suite.json"


def wine(rows: int = 178, *, broken: bool = False) -> pa.Table:
    """Thirteen measurements of a wine and its `cultivar`, 0 to 2: https://archive.ics.uci.edu/dataset/109/wine."""
    frame = load_wine(as_frame=True).frame.rename(columns={"target": "cultivar"}).sample(rows, random_state=7)
    frame.columns = [name.replace("/", "_") for name in frame.columns]
    if broken:
        frame["alcohol"] = frame["alcohol"] / 100  # a share instead of percent
    return pa.Table.from_pandas(frame, preserve_index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put the wine data and its suite into a bucket.")
    parser.add_argument("--bucket", default="wine")
    parser.add_argument("--rows", type=int, default=178)
    parser.add_argument("--break", dest="broken", action="store_true", help="data that the suite refuses")
    chosen = parser.parse_args()
    store, sink = connect(), io.BytesIO()
    pq.write_table(wine(chosen.rows, broken=chosen.broken), sink)
    suite = Path(__file__).with_name(SUITE).read_bytes()
    for key, body in ((SUITE, suite), (KEY, sink.getvalue())):
        store.put_object(bucket_name=chosen.bucket, object_name=key, data=io.BytesIO(body), length=len(body))
        print(f"s3://{chosen.bucket}/{key}")


if __name__ == "__main__":
    main()
