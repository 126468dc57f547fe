"""The models of `examples/models`, one of each type: trained, registered, loaded and scored on real MLflow; and models
that others made."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pipelines import model_flavors, tensorflow_cpu
from pipelines.components.run_inference.score import Paths, Wanted, score
from pipelines.components.train_model.fit import train
from pipelines.errors import PipelineError
from pipelines.registered_model import Model, load_folder, resolve
from pipelines.report import Step
from pipelines.sketch import Sketch, reference_of

EXAMPLES = Path(__file__).parents[2] / "examples/models"
TYPES = {"random_forest": "sklearn", "xgboost": "xgboost", "keras": "tensorflow"}
PEOPLE = pd.DataFrame({"age": np.arange(40), "income": ["<=50K"] * 20 + [">50K"] * 20})
AGE = ModelSignature(inputs=Schema([ColSpec("long", "age")]), outputs=Schema([ColSpec("string")]))
CLASSES = {"classes": ["<=50K", ">50K"]}
PLAIN = ["mlflow"]  # requirements, said, so that MLflow does not look for them


# Keras on NumPy 2 when it saves; nobody sees it outside of tests.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning:keras")


@pytest.fixture(autouse=True)
def no_model_is_left_imported() -> Iterator[None]:
    """A step imports one model's code and ends; these tests import many."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("model", None)


@pytest.fixture(scope="module")
def features(demo: ModuleType, people: Any) -> pa.Table:
    """The demo's people, a row each."""
    frame = demo.features(people).to_pandas().drop_duplicates("user_id")
    return pa.Table.from_pandas(frame, schema=demo.COLUMNS, preserve_index=False)


@pytest.fixture(scope="module")
def trained(features: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Step]]:
    """Trains one of the examples, as the step does, on people who earn much if they studied long or are managers."""
    folder = tmp_path_factory.mktemp("training")
    rich = pc.or_(pc.greater(features["education_num"], 11), pc.equal(features["occupation"], "Exec-managerial"))
    labelled = features.append_column("income", pc.if_else(rich, ">50K", "<=50K"))
    pq.write_table(labelled, folder / "train.parquet")

    def make(example: str) -> tuple[Path, Step]:
        output, step = tmp_path_factory.mktemp(example) / "model", Step("income-training.train_model", "k", "")
        with tarfile.open(output.with_suffix(".tar"), "w") as archive:
            archive.add(EXAMPLES / example, ".")
        train(str(output.with_suffix(".tar")), str(folder / "train.parquet"), str(output), step)
        sys.modules.pop("model", None)
        return output, step

    return make


def register(folder: Path, name: str, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """A version as register_model makes it: the folder as artifacts of a run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    mlflow.set_experiment(name)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    return int(mlflow.register_model(f"runs:/{run.info.run_id}/model", name).version)


@pytest.mark.parametrize("example", TYPES)
def test_a_model_of_each_type_is_trained_registered_loaded_and_scored(
    example: str, trained: Any, features: pa.Table, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, training = trained(example)
    assert (training.facts["model_type"], training.facts["rows"]) == (TYPES[example], features.num_rows)
    known = features.drop_columns(["user_id", "event_timestamp"])
    (folder / "reference.json").write_text(json.dumps(reference_of(known, None)))
    version = register(folder, f"types-{example}", mlflow_uri, monkeypatch)

    rows = features.num_rows
    status = pa.array(["ok", "unknown", *["ok"] * (rows - 2)])
    asked = known.add_column(0, "line", pa.array(range(2, rows + 2))).add_column(0, "user_id", features["user_id"])
    strange = pc.if_else(pc.equal(asked["line"], 2), "Never-heard-of", asked["workclass"])
    asked = asked.set_column(asked.column_names.index("workclass"), "workclass", strange)
    pq.write_table(asked.append_column("status", status), tmp_path / "features")
    step = Step("income-batch-inference.run_inference", "k", "")
    paths = Paths(*(str(tmp_path / name) for name in ("features", "predictions", "sketch")))
    assert score(Wanted(f"types-{example}", version), paths, step) == version

    found = pq.read_table(paths.predictions)
    probability = found["probability"].to_numpy()
    scored = ~np.isnan(probability)
    assert scored.tolist() == [True, False, *[True] * (rows - 2)]
    rich = (known["education_num"].to_numpy() > 11) | (known["occupation"].to_numpy() == "Exec-managerial")
    assert roc_auc_score(rich[scored], probability[scored]) > 0.95
    assert (step.facts["model_type"], step.facts["environment"]) == (TYPES[example], {})
    assert Sketch.read(json.loads(Path(paths.sketch).read_text())).counts["workclass"].sum() == rows
    assert [path.name for path in folder.rglob("*") if "pickle" in path.name or path.suffix == ".pkl"] == []


@pytest.mark.parametrize("example", TYPES)
def test_the_same_rows_train_the_same_model(example: str, trained: Any, features: pa.Table) -> None:
    models = [load_folder(trained(example)[0]) for _ in range(2)]
    frame = features.select(list(models[0].columns)).to_pandas()
    first, second = (model.probability(frame) for model in models)
    assert first.tolist() == second.tolist()


def saved(folder: Path, model: Any, flavor: Any = mlflow.sklearn, **more: Any) -> Path:
    """A model as somebody else saves it."""
    flavor.save_model(model, str(folder / "saved"), pip_requirements=PLAIN, **({"signature": AGE} | more))
    return folder / "saved"


def logistic(labels: Any = PEOPLE["income"]) -> Any:
    return LogisticRegression().fit(PEOPLE[["age"]], labels)


def boosted(**params: Any) -> Any:
    import xgboost

    return xgboost.train({"objective": "binary:logistic"} | params, xgboost.DMatrix(PEOPLE[["age"]], [0, 1] * 20), 2)


def check_probability(model: Model) -> None:
    found = model.probability(PEOPLE[["age"]])
    assert (found.dtype, found.shape) == (np.float64, (40,))
    assert ((found >= 0) & (found <= 1)).all()


def test_a_pickled_model_is_loaded_unless_the_platform_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(PEOPLE[["age"]], PEOPLE["income"])
    folder = saved(tmp_path, forest, serialization_format="cloudpickle")
    check_probability(load_folder(folder))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(PipelineError, match=r"models:/m/1 cannot be loaded: .*MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        load_folder(folder, "models:/m/1")
    check_probability(load_folder(saved(tmp_path / "no_code_in_it", boosted(), mlflow.xgboost, metadata=CLASSES)))


def test_a_pickle_of_code_that_is_not_here_says_what_is_missing(tmp_path: Path) -> None:
    folder = saved(tmp_path, logistic(), serialization_format="pickle")
    path = folder / "model.pkl"
    path.write_bytes(path.read_bytes().replace(b"sklearn.linear_model", b"nowhere.linear_model"))
    with pytest.raises(PipelineError, match="cannot be loaded"):
        load_folder(folder)


def test_a_model_that_counts_its_classes_must_say_their_names(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="does not say which classes its 0 and its 1 are"):
        load_folder(saved(tmp_path / "a", logistic([0, 1] * 20)))
    check_probability(load_folder(saved(tmp_path / "b", logistic([0, 1] * 20), metadata=CLASSES)))


@pytest.mark.parametrize("kind", [bool, float])
def test_classes_that_are_flags_are_called_what_the_metadata_says(kind: type, tmp_path: Path) -> None:
    flags = [kind(number) for number in [0, 1] * 20]
    check_probability(load_folder(saved(tmp_path, logistic(flags), metadata=CLASSES)))


TWO = PEOPLE[["age"]].assign(hours=range(40, 0, -1))
SWAPPED = ModelSignature(inputs=Schema([ColSpec("long", "hours"), ColSpec("long", "age")]))


@pytest.mark.parametrize("flavor", ["sklearn", "xgboost"])
def test_columns_are_given_in_the_order_that_the_model_was_taught(flavor: str, tmp_path: Path) -> None:
    import xgboost

    def taught(columns: list[str]) -> Any:
        if flavor == "sklearn":
            return LogisticRegression().fit(TWO[columns], PEOPLE["income"])
        return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(TWO[columns], [0, 1] * 20), 2)

    how = {"signature": SWAPPED, "metadata": CLASSES}
    model = load_folder(saved(tmp_path / "a", taught(["age", "hours"]), getattr(mlflow, flavor), **how), "models:/m/1")
    found = model.probability(TWO[list(model.columns)])
    assert np.allclose(found, model.probability(TWO))
    short = load_folder(saved(tmp_path / "b", taught(["age"]), getattr(mlflow, flavor), **how), "models:/m/1")
    with pytest.raises(
        PipelineError, match=r"models:/m/1 cannot score these rows: its signature and .* differ in hours"
    ):
        short.probability(TWO[list(short.columns)])


def test_a_word_that_an_encoder_was_not_taught_is_told_without_the_word(tmp_path: Path) -> None:
    jobs = pd.DataFrame({"job": ["a", "b"] * 20})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(jobs, PEOPLE["income"])
    signature = ModelSignature(inputs=Schema([ColSpec("string", "job")]))
    loaded = load_folder(saved(tmp_path, model, signature=signature), "models:/m/1")
    with pytest.raises(PipelineError, match=r"models:/m/1 cannot score these rows: .*handle_unknown") as caught:
        loaded.probability(pd.DataFrame({"job": ["Astronaut"]}))
    assert "Astronaut" not in str(caught.value)


def test_any_other_error_while_scoring_is_told_by_its_kind(tmp_path: Path) -> None:
    loaded = load_folder(saved(tmp_path, logistic()), "models:/m/1")
    with pytest.raises(PipelineError) as caught:
        loaded.probability(pd.DataFrame({"age": ["Astronaut"]}))
    assert str(caught.value) == "models:/m/1 cannot score these rows: ValueError; the run's log has the traceback"


def test_classes_in_the_other_order_are_turned_round(tmp_path: Path) -> None:
    orders = {"a": ["<=50K", ">50K"], "b": [">50K", "<=50K"]}
    given = [saved(tmp_path / n, boosted(), mlflow.xgboost, metadata={"classes": c}) for n, c in orders.items()]
    one, other = (load_folder(folder).probability(PEOPLE[["age"]]) for folder in given)
    assert np.allclose(one, 1 - other)


def test_a_column_of_words_that_a_booster_was_not_taught_is_named(tmp_path: Path) -> None:
    signature = ModelSignature(inputs=Schema([ColSpec("string", "age")]))
    model = load_folder(saved(tmp_path, boosted(), mlflow.xgboost, metadata=CLASSES, signature=signature))
    with pytest.raises(PipelineError, match="was not taught words in age"):
        model.probability(pd.DataFrame({"age": ["old"]}))


UNFIT = {
    "no_probabilities": (lambda: LinearRegression().fit(PEOPLE[["age"]], [0, 1] * 20), "sklearn", {},
                         "gives no probabilities: LinearRegression has no predict_proba"),
    "no_signature": (logistic, "sklearn", {"signature": None}, "has no signature with column names"),
    "other_classes": (lambda: logistic(["low", "high"] * 20), "sklearn", {}, "tells high, low apart"),
    "another_objective": (lambda: boosted(objective="reg:squarederror"), "xgboost", {"metadata": CLASSES},
                          "its objective is reg:squarederror, not binary:logistic"),
    "no_class_names": (boosted, "xgboost", {}, "does not say which classes"),
    "other_class_names": (boosted, "xgboost", {"metadata": {"classes": ["no", "yes"]}}, "tells no, yes apart"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_that_cannot_serve_is_refused_before_any_row(case: str, tmp_path: Path) -> None:
    make, flavor, more, message = UNFIT[case]
    folder = saved(tmp_path, make(), getattr(mlflow, flavor), **more)
    with pytest.raises(PipelineError, match=message):
        load_folder(folder, "models:/m/1")


def test_a_model_is_not_read_as_another_type(tmp_path: Path) -> None:
    folder = saved(tmp_path, logistic())
    with pytest.raises(PipelineError, match="models:/m/1 is no xgboost model; set model_type to 'sklearn', or leave"):
        load_folder(folder, "models:/m/1", "xgboost")
    document = (folder / "MLmodel").read_text().replace("  sklearn:", "  lightgbm:")
    (folder / "MLmodel").write_text(document)
    with pytest.raises(PipelineError, match="its flavours are lightgbm, python_function; one must be sklearn, xgboost"):
        load_folder(folder, "models:/m/1")


def test_a_network_s_tensors_are_columns_if_each_is_one_value_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")  # there is none in it
    age = keras.Input((1,), name="age")
    model = keras.Model({"age": age}, keras.layers.Dense(2, activation="softmax")(age))
    one = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), "age")]))
    loaded = load_folder(saved(tmp_path / "a", model, mlflow.tensorflow, signature=one, metadata=CLASSES))
    assert loaded.columns == {"age": "float"}
    check_probability(loaded)
    many = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 28, 28), "age")]))
    with pytest.raises(PipelineError, match=r"wants a tensor of shape .* as age; a feature is one value"):
        load_folder(saved(tmp_path / "b", model, mlflow.tensorflow, signature=many, metadata=CLASSES))


def test_two_models_keep_their_own_code(tmp_path: Path) -> None:
    probabilities = []
    for name, factor in (("a", "0.25"), ("b", "0.5")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(OWN.format(factor))
        sys.path.insert(0, str(tmp_path / name))
        sys.modules.pop("model", None)
        from model import Fixed  # type: ignore[import-not-found]  # written two lines above

        saved(
            tmp_path / name,
            Fixed(),
            code_paths=[str(tmp_path / name / "model.py")],
            skops_trusted_types=["model.Fixed"],
        )
        sys.path.pop(0)
        probabilities.append(load_folder(tmp_path / name / "saved").probability(PEOPLE[["age"]])[0])
    again = load_folder(tmp_path / "a/saved").probability(PEOPLE[["age"]])[0]
    assert (*probabilities, again) == (0.25, 0.5, 0.25)


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Fixed(ClassifierMixin, BaseEstimator):
    classes_ = ["<=50K", ">50K"]

    def predict_proba(self, X):
        return np.full((len(X), 2), {})
"""


def test_a_reference_that_is_none_ends_the_run(tmp_path: Path) -> None:
    folder = saved(tmp_path, logistic())
    assert load_folder(folder).reference is None
    (folder / "reference.json").write_text("[]")
    with pytest.raises(PipelineError, match=r"reference\.json of models:/m/1 is no JSON object"):
        load_folder(folder, "models:/m/1")


def test_an_alias_is_resolved_only_if_no_version_is_given(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(saved(tmp_path, logistic()), "aliased", mlflow_uri, monkeypatch)
    mlflow.MlflowClient().set_registered_model_alias("aliased", "champion", str(version))
    assert (resolve("aliased", 7, "champion"), resolve("aliased", 0, "champion")) == (7, version)
    with pytest.raises(PipelineError, match="there is no models:/aliased@nobody in the registry"):
        resolve("aliased", 0, "nobody")
    with pytest.raises(PipelineError, match="which version of aliased"):
        resolve("aliased", 0, "")


def test_tensorflow_starts_without_a_word_of_gpus() -> None:
    code = "from pipelines import tensorflow_cpu; tensorflow_cpu.load().ops.ones(3); import os; os.write(2, b'mine')"
    unset = {name: text for name, text in os.environ.items() if name not in tensorflow_cpu.SETTINGS}
    command, root = [sys.executable, "-c", code], EXAMPLES.parents[1]
    done = subprocess.run(command, cwd=root, env=unset, capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == ("", "mine")


def test_an_image_without_tensorflow_says_what_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(PipelineError, match="need TensorFlow, which this image lacks: build it with the extra"):
        model_flavors.SCORERS["tensorflow"](tmp_path, None, "models:/m/1")
