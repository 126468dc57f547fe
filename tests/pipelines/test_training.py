"""The training's plain functions: window, split, the model repository's contract, what is saved, how it is measured."""

import io
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.evaluate_model.quality import ROC_POINTS, measure, thinned
from pipelines.components.prepare_data.training_set import in_window, read_labels, split, window
from pipelines.components.train_model.fit import fit, pinned, save, trusted_types
from pipelines.components.train_model.repository import Repository, open_repository, unpack
from pipelines.errors import PipelineError

START = datetime(2026, 1, 1, tzinfo=UTC)
BUILD = "def build(params):\n    return {}\n"
LOGISTIC = "from sklearn.linear_model import LogisticRegression\n" + BUILD.format("LogisticRegression(**params)")
FEATURES = pa.table({"age": list(range(20, 60)), "job": ["a", "b"] * 20})
OUTCOME = ["<=50K"] * 20 + [">50K"] * 20


def labels(days: list[int], incomes: list[str | None]) -> pa.Table:
    times = [START + timedelta(days=day) for day in days]
    return pa.table(
        {
            "user_id": pa.array(range(len(days)), pa.int64()),
            "event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
            "income": pa.array(incomes, pa.string()),
        }
    )


@pytest.fixture(autouse=True)
def no_model_is_left_imported() -> Iterator[None]:
    """A step imports one repository's model.py and ends; these tests import many."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("model", None)


def repository(folder: Path, **files: str) -> Repository:
    for name, text in files.items():
        (folder / name.replace("_yaml", ".yaml").replace("_txt", ".txt").replace("_py", ".py")).write_text(text)
    return open_repository(folder)


def test_a_window_leaves_its_start_out_and_takes_its_end() -> None:
    chosen = window("2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z")
    rows = in_window(labels([0, 1, 2, 3, 4], ["<=50K"] * 5), chosen, "s3://b/l")
    assert rows["user_id"].to_pylist() == [2, 3]


def test_no_since_is_all_of_history() -> None:
    rows = in_window(labels([3, 0], ["<=50K"] * 2), window("", "2026-01-04T00:00:00Z"), "s3://b/l")
    assert rows["user_id"].to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("since", "as_of", "message"),
    [
        ("2026-01-04T00:00:00Z", "2026-01-04T00:00:00Z", "the window is empty"),
        ("2026-01-01", "2026-01-04T00:00:00Z", "since has no offset"),
        ("", "", "as_of is not an RFC 3339 time"),
    ],
)
def test_a_window_that_is_none_is_refused(since: str, as_of: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        window(since, as_of)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (labels([400], ["<=50K"]), "nothing to train on"),
        (labels([0, 1], ["<=50K", "rich"]), "found also: 'rich'"),
        (labels([0, 1], ["<=50K", None]), "found also: None"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(table: pa.Table, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        in_window(table, window("", "2026-12-01T00:00:00Z"), "s3://b/l")


def test_the_test_set_is_the_newest_fifth_and_shares_no_moment_with_the_training_set() -> None:
    rows = labels([0, 1, 2, 3, 4, 5, 6, 7, 7, 9], ["<=50K", ">50K"] * 5)
    train, test = split(rows)
    assert train["user_id"].to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert test["user_id"].to_pylist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("incomes", "message"),
    [
        (["<=50K"] * 10, "older four fifths .* has no >50K"),
        (["<=50K", ">50K"] * 4 + [">50K"] * 2, "newest fifth .* has no <=50K"),
    ],
)
def test_one_class_alone_trains_nothing(incomes: list[str | None], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        split(labels(list(range(10)), incomes))


def test_labels_without_a_column_are_refused(storage_env: Any, bucket: str) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"user_id": [1], "income": ["<=50K"]}), sink)
    storage_env.client.put_object(bucket, "l.parquet", io.BytesIO(sink.getvalue()), sink.tell())
    storage_env.client.put_object(bucket, "l.csv", io.BytesIO(b"user_id\n1\n"), 10)
    for name, message in (("l.parquet", "has no column event_timestamp"), ("l.csv", "must be Parquet")):
        with pytest.raises(PipelineError, match=message):
            read_labels(f"s3://{bucket}/{name}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, "has no model.py", id="no_model"),
        pytest.param({"model_py": "def builds(params): ..."}, "no function build", id="no_build"),
        pytest.param({"model_py": "build = 3"}, "no function build", id="build_is_no_function"),
        pytest.param(
            {"model_py": "import no_such_thing"},
            "importing model.py of .*: No module named .no_such_thing",
            id="a_missing_import",
        ),
        pytest.param({"model_py": "def build(:"}, "importing model.py of .*SyntaxError", id="a_syntax_error"),
        pytest.param({"model_py": BUILD.format("params['depth']")}, "failed: KeyError: 'depth'", id="build_raises"),
        pytest.param({"model_py": BUILD.format("3")}, "returned int, which has no fit", id="no_estimator"),
        pytest.param({"model_py": LOGISTIC, "params_yaml": "- 1"}, "must be a mapping", id="params_are_a_list"),
        pytest.param({"model_py": LOGISTIC, "params_yaml": "{"}, "no valid YAML", id="params_are_no_yaml"),
        pytest.param(
            {"model_py": LOGISTIC, "requirements_txt": "scikit-learn<1\nno-such-thing  # why\n-r more.txt\n"},
            "scikit-learn<1 is wanted, .* is installed; no-such-thing is not installed; '-r more.txt' is not a plain",
            id="requirements_are_not_met",
        ),
        pytest.param(
            {"model_py": LOGISTIC, "requirements_txt": "x @ https://example.org/x.whl"}, "asks for a URL", id="a_url"
        ),
        pytest.param({"model_py": LOGISTIC + "TRUSTED_TYPES = 'model.A'"}, "must be a list", id="trusted_text"),
    ],
)
def test_a_repository_that_keeps_no_contract_is_told_how(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message):
        repository(tmp_path, **files)


def test_parameters_and_neighbours_reach_the_model(tmp_path: Path) -> None:
    model = "from neighbour import C\n" + LOGISTIC.replace("**params", "C=C, **params")
    found = repository(
        tmp_path, model_py=model, neighbour_py="C = 3.0", params_yaml="max_iter: 7\n", requirements_txt="# none\n"
    )
    assert (found.estimator.C, found.estimator.max_iter, found.params) == (3.0, 7, {"max_iter": 7})


def test_a_bare_estimator_is_put_behind_an_encoding(tmp_path: Path) -> None:
    fitted = fit(repository(tmp_path, model_py=LOGISTIC).estimator, FEATURES, np.array(OUTCOME))
    assert fitted.predict_proba(FEATURES.to_pandas()).shape == (40, 2)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("__import__('sklearn.svm').svm.LinearSVC()", "gives no probabilities: LinearSVC has no predict_proba"),
        (
            "__import__('sklearn.pipeline').pipeline.make_pipeline(__import__('sklearn.svm').svm.SVC())",
            "fitting .* ValueError",
        ),
    ],
)
def test_an_estimator_that_cannot_serve_is_refused(estimator: str, message: str, tmp_path: Path) -> None:
    found = repository(tmp_path, model_py=BUILD.format(estimator))
    with pytest.raises(PipelineError, match=message):
        fit(found.estimator, FEATURES, np.array(OUTCOME))


OWN_TYPE = """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


class Clip(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X.clip(30, 50)


def build(params):
    return make_pipeline(make_column_transformer((Clip(), ["age"])), LogisticRegression())
"""


def test_a_type_of_its_own_must_be_vouched_for(tmp_path: Path) -> None:
    found = repository(tmp_path, model_py=OWN_TYPE)
    fitted = fit(found.estimator, FEATURES, np.array(OUTCOME))
    with pytest.raises(PipelineError, match=r"model\.Clip.*TRUSTED_TYPES"):
        trusted_types(fitted, found.trusted_types)


def test_a_vouched_type_is_saved_with_its_code_and_loads_again(tmp_path: Path) -> None:
    import mlflow

    (tmp_path / "code").mkdir()
    found = repository(tmp_path / "code", model_py=OWN_TYPE + "\nTRUSTED_TYPES = ['model.Clip']\n")
    fitted = fit(found.estimator, FEATURES, np.array(OUTCOME))
    save(fitted, FEATURES.schema, found, tmp_path / "saved")
    loaded = mlflow.sklearn.load_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved/code/model.py").exists()
    assert not list((tmp_path / "saved").rglob("*.pkl"))
    assert loaded.predict(FEATURES.to_pandas()).tolist() == fitted.predict(FEATURES.to_pandas()).tolist()


def test_a_requirement_stands_once_with_the_version_at_hand() -> None:
    lines = pinned(("Scikit_Learn>=1.0", "pyyaml"))
    assert len([line for line in lines if line.startswith("scikit-learn==")]) == 1
    assert [line for line in lines if line.startswith("pyyaml==")]


def test_an_archive_does_not_leave_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "code.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(tmp_path / "code.tar", tmp_path / "tree")


def test_a_curve_is_short_finite_and_keeps_its_ends() -> None:
    random = np.random.default_rng(1)
    truth = np.where(random.random(5000) < 0.3, ">50K", "<=50K")
    quality = measure(truth, np.clip(random.normal(0.4, 0.2, 5000) + 0.2 * (truth == ">50K"), 0, 1))
    false, true, thresholds = quality.roc
    assert len(false) == len(true) == len(thresholds) == ROC_POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert max(thresholds) <= 1.0
    assert 0.7 < quality.figures["auc"] < 0.8
    assert sum(sum(row) for row in quality.confusion) == 5000


def test_an_infinite_threshold_is_clipped() -> None:
    assert thinned(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([np.inf, 0.2]))[2] == [1.0, 0.2]
