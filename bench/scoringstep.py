# ruff: noqa: PLC0415 - imports stand in functions, for they are what is measured
"""`python bench/scoringstep.py STEP PARAMS`: one step of a scoring, or the bare script, in this process; prints JSON.

Started by inference.py, a fresh process each time, as KFP does it. The imports are measured apart from the work, also
those that Feast, ibis and MLflow do only when they are used, which are seconds. `work` is what else the step's
functions take, their own storage and registry included. `peak` is the process's largest resident set, imports included.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")
Work = Callable[[dict[str, Any]], None]
JOB = "income-batch-inference."


def read_data() -> Work:
    from pipelines.components.read_data.columns import Asked
    from pipelines.components.read_data.read import read
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    def work(given: dict[str, Any]) -> None:
        ref = ObjectRef(given["bucket"], given["key"])
        read(ref, Asked(), given["shards"], given["requested"], Step(JOB + "read_data", "bench", ""))

    return work


def retrieve_features() -> Work:
    from pipelines.components.retrieve_features.retrieve import Part, retrieve
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    def work(given: dict[str, Any]) -> None:
        config = ObjectRef(given["bucket"], "feature_store.yaml")
        part = Part(given["shard"], given["shards"])
        paths, step = (given["requested"], given["features"]), Step(JOB + "retrieve_features", "bench", "")
        retrieve(config, ["income_v1"], given["as_of"], paths, step, part)

    return work


def run_inference() -> Work:
    from pipelines.components.run_inference.score import Paths, Wanted, score
    from pipelines.report import Step

    def work(given: dict[str, Any]) -> None:
        paths = Paths(given["features"], given["predictions"], given["sketch"])
        score(Wanted(given["model"], 1), paths, Step(JOB + "run_inference", "bench", ""))

    return work


def write_data() -> Work:
    from pipelines.components.write_data.write import Parts, write
    from pipelines.report import Step
    from pipelines.storage import ObjectRef

    def work(given: dict[str, Any]) -> None:
        parts = Parts(given["requested"], given["all_predictions"], given["all_sketches"])
        target = ObjectRef(given["bucket"], given["output"])
        write(parts, target, "bench", given["as_of"], Step(JOB + "write_data", "bench", ""))

    return work


def bare() -> Work:
    """What one writes without us: pandas, Feast, the model, Parquet; only who has all features is scored."""
    import io

    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from pipelines.duckdb_storage import connect_duckdb, point_feast_at_storage
    from pipelines.storage import connect

    def work(given: dict[str, Any]) -> None:
        client = connect()
        with client.get_object(bucket_name=given["bucket"], object_name=given["key"]) as response:
            ids = pd.read_csv(io.BytesIO(response.read()))
        ids["event_timestamp"] = pd.Timestamp(given["as_of"])
        point_feast_at_storage()
        store = FeatureStore(fs_yaml_file=Path(given["config"]))
        connect_duckdb()
        request = store.get_feature_service("income_v1")
        rows = store.get_historical_features(entity_df=ids, features=request).to_df().dropna()
        model = mlflow.sklearn.load_model(f"models:/{given['model']}/1")
        features = rows.drop(columns=["user_id", "event_timestamp"])
        scored = rows[["user_id"]].assign(probability=model.predict_proba(features)[:, 1])
        scored.to_parquet(given["predictions"])
        client.fput_object(bucket_name=given["bucket"], object_name=given["output"], file_path=given["predictions"])

    return work


class Imports:
    """Seconds, and of CPU, that this thread has spent in imports; counted from `watch` on."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self._depth = 0
        self._find = importlib._bootstrap._find_and_load

    def watch(self) -> None:
        """Every import goes through this function, a statement's and a call's."""
        importlib._bootstrap._find_and_load = self._timed

    def _timed(self, *arguments: Any) -> Any:
        self._depth += 1
        begun, spent = time.perf_counter(), time.thread_time()
        try:
            return self._find(*arguments)
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - begun
                self.cpu += time.thread_time() - spent


def main() -> None:
    """Imports, works, and says what each took."""
    steps = (read_data, retrieve_features, run_inference, write_data, bare)
    late = Imports()
    begun = time.perf_counter()
    work = {step.__name__: step for step in steps}[sys.argv[1]]()
    late.watch()
    ready, spent = time.perf_counter(), time.process_time()
    work(json.loads(sys.argv[2]))
    done, used = time.perf_counter() - late.seconds, time.process_time() - late.cpu
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024  # getrusage's begins with what the parent had
    print(
        json.dumps({"imports": ready - begun + late.seconds, "work": done - ready, "cpu": used - spent, "peak": peak})
    )


if __name__ == "__main__":
    main()
