"""The contract of a model repository: what is fitted and saved of one that keeps it, what the others are told."""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest

from pipelines.components.train_model.fit import fit, save
from pipelines.components.train_model.manifest import pinned
from pipelines.components.train_model.repository import Repository, open_repository, unpack
from pipelines.components.train_model.scikit import trusted_types
from pipelines.errors import PipelineError

BUILD = "def build(params):\n    return {}\n"
LOGISTIC = "from sklearn.linear_model import LogisticRegression\n" + BUILD.format("LogisticRegression(**params)")
FEATURES = pa.table({"age": list(range(20, 60)), "job": ["a", "b"] * 20})
OUTCOME = ["<=50K"] * 20 + [">50K"] * 20


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
        pytest.param({"model_py": LOGISTIC + "TRUSTED_TYPES = None"}, "must be a list", id="trusted_nothing"),
        pytest.param({"model_py": "import sys; sys.exit(0)"}, "importing model.py .*it called sys.exit", id="an_exit"),
        pytest.param({"model_py": BUILD.format("exit(0)")}, "build.* failed: it called sys.exit", id="build_exits"),
        pytest.param(
            {"model_py": LOGISTIC, "params_yaml": "a: [1, {trained_for: 2026-12-01}]\nC: .nan"},
            r"params\.yaml: a\.2\.trained_for is a date; quote it; C is no finite number",
            id="params_are_no_json",
        ),
        pytest.param({"model_py": LOGISTIC, "params_yaml": "a: &a [*a]"}, "no valid YAML", id="params_without_end"),
        pytest.param({"model_py": LOGISTIC + "adapt = 3"}, "adapt in model.py must be a function", id="adapt_is_none"),
        pytest.param(
            {"model_py": LOGISTIC, "params_yaml": "seed: now"}, "seed in params.yaml must be a whole", id="a_seed"
        ),
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
        ("__import__('xgboost').XGBRegressor()", "gives no probabilities: XGBRegressor is no XGBClassifier"),
        (
            "__import__('xgboost').XGBClassifier(early_stopping_rounds=3)",
            "early_stopping_rounds needs a set to stop by",
        ),
        ("__import__('xgboost').XGBClassifier(objective='binary:hinge')", "its objective is binary:hinge"),
    ],
)
def test_an_estimator_that_cannot_serve_is_refused(estimator: str, message: str, tmp_path: Path) -> None:
    found = repository(tmp_path, model_py=BUILD.format(estimator))
    with pytest.raises(PipelineError, match=message):
        fit(found.estimator, FEATURES, np.array(OUTCOME))


UNFIT = """
from sklearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression

class Own(LogisticRegression):
    def fit(self, X, y):
        {}

def build(params):
    return make_pipeline(Own())
"""


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("raise ValueError('row ' + str(X['age'][0]))", "ValueError at model.py:7; the run's log has the traceback"),
        ("super().fit(X, y)", "ValueError at model.py:7; the run's log has the traceback"),  # a word is no number
        ("exit(0)", "it called sys.exit at model.py:7; the run's log has the traceback"),
    ],
)
def test_what_ends_a_fit_is_told_by_its_kind_and_place_and_not_in_words_that_quote_a_row(
    does: str, told: str, tmp_path: Path
) -> None:
    found = repository(tmp_path, model_py=UNFIT.format(does))
    with pytest.raises(PipelineError) as caught:
        fit(found.estimator, FEATURES, np.array(OUTCOME), found)
    assert str(caught.value) == f"fitting the model repository's estimator failed: {told}"


NETWORK = """
import keras
from keras import layers

def of(last, **inputs):
    given = {{name: keras.Input((1,), name=name, dtype=kind) for name, kind in inputs.items()}}
    return keras.Model(given, last(given["age"]))

class Own(layers.Layer):
    def call(self, x):
        return x

def build(params):
    return {}
"""


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("keras.Sequential([layers.Dense(1)])", "without named inputs"),
        ("of(layers.Dense(1), age='float32', sex='string')", "lacks job, and has besides sex"),
        ("of(layers.Dense(3), age='float32', job='string')", r"its output has the shape \(None, 3\)"),
        ("of(layers.Lambda(lambda x: x), age='float32', job='string')", "only a pickle could keep: .*Lambda"),
        ("of(Own(), age='float32', job='string')", r"only a pickle could keep: model\.Own"),
    ],
)
def test_a_network_that_cannot_serve_is_refused_before_it_is_fitted(network: str, message: str, tmp_path: Path) -> None:
    found = repository(tmp_path, model_py=NETWORK.format(network))
    with pytest.raises(PipelineError, match=message):
        fit(found.estimator, FEATURES, np.array(OUTCOME), found)


def test_an_estimator_without_a_seed_is_fitted_alike_each_time(tmp_path: Path) -> None:
    forest = "__import__('sklearn.ensemble').ensemble.RandomForestClassifier(5)"
    chances = []
    for _ in range(2):
        found = repository(tmp_path, model_py=BUILD.format(forest), params_yaml="seed: 7\n")
        fitted = fit(found.estimator, FEATURES, np.array(OUTCOME))
        chances.append(fitted.predict_proba(FEATURES.to_pandas()).tolist())
    assert chances[0] == chances[1]


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
    (tmp_path / "code").mkdir()
    found = repository(tmp_path / "code", model_py=OWN_TYPE + "\nTRUSTED_TYPES = ['model.Clip']\n")
    fitted = fit(found.estimator, FEATURES, np.array(OUTCOME))
    save(fitted, FEATURES.schema, found, tmp_path / "saved")
    loaded = mlflow.sklearn.load_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved/code/model.py").exists()
    assert not list((tmp_path / "saved").rglob("*.pkl"))
    assert loaded.predict(FEATURES.to_pandas()).tolist() == fitted.predict(FEATURES.to_pandas()).tolist()


def test_a_requirement_stands_once_with_the_version_at_hand() -> None:
    lines = pinned(("Scikit_Learn>=1.0", "pyyaml"), ("scikit-learn",))
    assert len([line for line in lines if line.startswith("scikit-learn==")]) == 1
    assert [line for line in lines if line.startswith("pyyaml==")]


def test_an_archive_does_not_leave_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "code.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(tmp_path / "code.tar", tmp_path / "tree")
