"""The wine example's first step: which tables it refuses, before a forest is planted. On a real MinIO."""

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PipelineError

STEPS = Path(__file__).parents[2] / "examples/wine/components.py"
GOOD = pa.table({"alcohol": [float(n) for n in range(20)], "ash": range(20), "cultivar": [0, 1] * 10})


@pytest.fixture(scope="module")
def fetch() -> Any:
    """The step's own function; its file is no package's."""
    spec = importlib.util.spec_from_file_location("wine_components", STEPS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fetch_wine.python_func


def fetched(fetch: Any, table: pa.Table, storage: Any, bucket: str, folder: Path) -> Path:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    storage.client.put_object(bucket, "wine.parquet", io.BytesIO(sink.getvalue()), sink.tell())
    outputs = {name: SimpleNamespace(path=str(folder / name)) for name in ("train", "test")}
    told = {"label": "cultivar", "run_key": "k", "report_uri": ""}
    fetch(bucket=bucket, key="wine.parquet", version="", etag="", **told, **outputs)
    return folder / "train"


def test_a_table_of_numbers_and_two_cultivars_is_split(
    fetch: Any, storage_env: Any, bucket: str, tmp_path: Path
) -> None:
    assert pq.read_table(fetched(fetch, GOOD, storage_env, bucket, tmp_path)).num_rows == 15


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD.set_column(2, "cultivar", pa.array([1] * 20)), "has only one cultivar in all 20 rows"),
        (GOOD.append_column("cellar", pa.array(["a"] * 20)), "columns that are no numbers: cellar; leave them out"),
    ],
    ids=["one_cultivar", "a_column_of_words"],
)
def test_a_table_that_no_forest_can_be_judged_on_is_refused(
    table: pa.Table, message: str, fetch: Any, storage_env: Any, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=message):
        fetched(fetch, table, storage_env, bucket, tmp_path)
