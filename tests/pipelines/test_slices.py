"""Which rows a slice is."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.components.train_model.fit import train
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.slices import slices_of

ROWS = pa.table(
    {
        "user_id": list(range(200)),
        "job": ["Craft"] * 150 + ["Sales"] * 40 + ["Rare"] * 9 + [None],
        "age": list(range(200)),
        "grade": pa.array([1, 2] * 100, pa.int64()),
        "married": [True, False] * 100,
    }
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(["job"], {"job=Craft": 150, "job=Sales": 40}, id="each_value_that_is_not_rare"),
        pytest.param(["job=Rare"], {"job=Rare": 9}, id="a_rare_value_that_is_named"),
        pytest.param(["job=Nobody"], {"job=Nobody": 0}, id="a_value_that_is_not_there"),
        pytest.param(["grade"], {"grade=1": 100, "grade=2": 100}, id="a_number_with_few_values"),
        pytest.param(["married"], {"married=False": 100, "married=True": 100}, id="yes_or_no"),
        pytest.param(
            ["age"], {"age=0..49": 50, "age=50..99": 50, "age=100..149": 50, "age=150..199": 50}, id="a_number"
        ),
        pytest.param(["grade=2", " job=Sales "], {"grade=2": 100, "job=Sales": 40}, id="several"),
        pytest.param([], {}, id="none"),
    ],
)
def test_a_slice_is_a_value_or_a_quarter(wanted: list[str], expected: dict[str, int]) -> None:
    found = slices_of(ROWS, wanted)
    assert {name: int(mask.sum()) for name, mask in found.items()} == expected


def test_a_training_hands_its_slices_to_the_step_that_fits(packages: Path) -> None:
    package = next(yaml.safe_load_all((packages / "income-training@v1.yaml").read_text()))
    [tasks] = [
        one["dag"]["tasks"]
        for one in package["components"].values()
        if "train-model" in one.get("dag", {}).get("tasks", {})
    ]
    assert "slices" in tasks["train-model"]["inputs"]["parameters"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("shoe", "'shoe' is no feature"),
        ("user_id=7", "'user_id' is no feature"),
        ("age=old", "'old' is no value of age"),
    ],
)
def test_what_is_no_slice_is_refused_and_before_anything_is_fitted(entry: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=message):
        slices_of(ROWS, [entry])
    pq.write_table(ROWS, tmp_path / "train")
    with pytest.raises(PipelineError, match=message):
        train("no.tar", str(tmp_path / "train"), "", Step("p.c", "k", ""), [entry])
