"""Training data held to a suite of Great Expectations: what holds, what the user is told, what is no suite."""

import io
import json
import tempfile
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.validate_data.component import validate_data
from pipelines.components.validate_data.validate import SHOWN, validate
from pipelines.errors import PipelineError
from pipelines.report import Step

ROOT = Path(__file__).parents[2]
ID = 7_654_321  # in every test here; in no text that comes out
PEOPLE = pa.table({"user_id": [ID, ID + 1, ID + 2, ID + 3], "age": [17, 40, 150, 200], "job": ["a", "b", "a", None]})
BETWEEN = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "max_value": 100}}


@pytest.fixture(scope="module", autouse=True)
def great_expectations() -> None:
    """Imported once, apart: its import warns of modules that it or Google's client still uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations  # noqa: F401


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    """PEOPLE, half of them for training and half to test."""
    pq.write_table(PEOPLE.slice(0, 2), tmp_path / "train")
    pq.write_table(PEOPLE.slice(2), tmp_path / "test")
    return str(tmp_path / "train"), str(tmp_path / "test")


def put(storage: Any, bucket: str, *expectations: Any) -> str:
    """A suite in the bucket."""
    text = json.dumps({"name": "people", "expectations": expectations}).encode()
    storage.client.put_object(bucket, "suite.json", io.BytesIO(text), len(text))
    return f"s3://{bucket}/suite.json"


def expect(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{name}", "kwargs": kwargs}


def validated(paths: tuple[str, str], suite: str, folder: Path, report_uri: str = "") -> tuple[dict[str, Any], Step]:
    step = Step("income-training.validate_data", "k", report_uri)
    with step:
        return validate(paths, suite, str(folder / "docs.html"), step), step


def test_data_that_holds_goes_on_with_the_suite_s_version(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    suite = put(storage_env, bucket, expect("column_values_to_be_between", column="age", max_value=200))
    result, step = validated(paths, suite, tmp_path)
    counts = {"expectations": 1, "failed": 0, "rows": 4, "success": True}
    assert result == {"suite": suite, "version": result["version"]} | counts
    assert step.facts["validation"] == {"suite": suite} | counts
    assert [(one.name, one.facets["version"]["datasetVersion"]) for one in step.inputs] == [
        ("suite.json", result["version"])
    ]
    assert "all hold" in (tmp_path / "docs.html").read_text()


def test_a_failed_expectation_ends_the_step_names_columns_and_rows_and_leaves_the_docs(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    suite = put(storage_env, bucket, BETWEEN, expect("column_values_to_not_be_null", column="job"))
    with pytest.raises(PipelineError) as caught:
        validated(paths, suite, tmp_path, f"s3://{bucket}/reports/k")
    assert str(caught.value) == (
        f"2 of 2 expectations of {suite} do not hold for the 4 rows of training and test set. "
        "age: expect_column_values_to_be_between (2 rows); job: expect_column_values_to_not_be_null (1 rows). "
        "Mend the data, or the suite if it expects too much; "
        f"the docs are s3://{bucket}/reports/k/validation.html"
    )
    found = {item.object_name: item for item in storage_env.client.list_objects(bucket, "reports/k/")}
    with storage_env.client.get_object(bucket, "reports/k/validation.html") as response:
        assert response.headers["content-type"].startswith("text/html")
        assert response.read() == (tmp_path / "docs.html").read_bytes()
    with storage_env.client.get_object(bucket, "reports/k/validate_data.json") as response:
        event = json.loads(response.read())
    assert sorted(found) == ["reports/k/validate_data.json", "reports/k/validation.html"]
    assert (event["eventType"], event["outputs"][0]["name"]) == ("FAIL", "reports/k/validation.html")
    facts = event["run"]["facets"]["kfpTriggers_report"]["validation"]
    assert facts == {"suite": suite, "expectations": 2, "failed": 2, "rows": 4, "success": False}


EVERY_KIND = [
    (expect("column_max_to_be_between", column="user_id", max_value=3), "user_id: expect_column_max_to_be_between"),
    (
        expect("column_values_to_be_in_set", column="user_id", value_set=[ID + 1]),
        "user_id: expect_column_values_to_be_in_set (3 rows)",
    ),
    (expect("column_values_to_be_unique", column="job"), "job: expect_column_values_to_be_unique (2 rows)"),
    (
        expect("column_pair_values_a_to_be_greater_than_b", column_A="age", column_B="user_id"),
        "age, user_id: expect_column_pair_values_a_to_be_greater_than_b (4 rows)",
    ),
    (
        expect("column_mean_to_be_between", column="age", max_value=20),
        "age: expect_column_mean_to_be_between (found 101.75)",
    ),
    (
        expect("column_values_to_be_of_type", column="age", type_="str"),
        "age: expect_column_values_to_be_of_type (found int64)",
    ),
    (expect("column_to_exist", column="shoe"), "shoe: expect_column_to_exist"),
    (
        expect("column_values_to_not_be_null", column="shoe"),
        "shoe: expect_column_values_to_not_be_null (there is no column shoe)",
    ),
    (
        expect("column_mean_to_be_between", column="job", max_value=20),
        "job: expect_column_mean_to_be_between (cannot be evaluated on string)",
    ),
    (expect("table_row_count_to_be_between", min_value=9), "the table: expect_table_row_count_to_be_between (found 4)"),
]


@pytest.mark.parametrize(
    "expectation",
    [
        expect("column_max_to_be_between", column="age", max_value=3),
        expect("column_min_to_be_between", column="age", min_value=9_000_000),
        expect("column_median_to_be_between", column="age", max_value=3),
        expect("column_most_common_value_to_be_in_set", column="age", value_set=[3]),
        expect(
            "column_quantile_values_to_be_between",
            column="age",
            quantile_ranges={"quantiles": [0.5], "value_ranges": [[1, 3]]},
        ),
    ],
    ids=lambda one: one["type"],
)
def test_what_may_be_one_person_s_value_is_not_told(
    expectation: dict[str, Any], storage_env: Any, bucket: str, tmp_path: Path
) -> None:
    people = PEOPLE.set_column(1, "age", pa.array([7_113_331] * 4))
    paths = str(tmp_path / "train"), str(tmp_path / "test")
    for path in paths:
        pq.write_table(people, path)
    with pytest.raises(PipelineError, match=f"age: {expectation['type']}. Mend") as caught:
        validated(paths, put(storage_env, bucket, expectation), tmp_path)
    page = (tmp_path / "docs.html").read_text()
    assert not any(number in f"{caught.value} {page}" for number in ("7113331", "7,113,331"))


def test_every_kind_of_failure_is_told_and_no_value_of_an_id(
    storage_env: Any,
    bucket: str,
    paths: tuple[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    suite = put(storage_env, bucket, *(expectation for expectation, _ in EVERY_KIND))
    with pytest.raises(PipelineError) as caught:
        validated(paths, suite, tmp_path)
    told, page, log = str(caught.value), (tmp_path / "docs.html").read_text(), "".join(capfd.readouterr())
    assert [said for _, said in EVERY_KIND if said not in told] == []
    assert not any(str(ID + n) in text for n in range(4) for text in (told, page, log))
    assert "Calculating" not in log
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs.html", "test", "train"]


OF_IDS = [
    (
        expect("column_pair_values_to_be_in_set", column_A="user_id", column_B="age", value_pairs_set=[[ID, 3]]),
        "user_id, age: expect_column_pair_values_to_be_in_set (4 rows)",
    ),
    (
        expect("column_values_to_be_between", column="user_id", min_value=ID, max_value=ID + 1),
        "user_id: expect_column_values_to_be_between (2 rows)",
    ),
    (
        expect("column_values_to_match_regex", column="user_id", regex=f"^{ID}$"),
        "user_id: expect_column_values_to_match_regex (3 rows)",
    ),
]


def test_what_a_suite_itself_says_of_ids_is_in_no_text(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    suite = put(storage_env, bucket, *(expectation for expectation, _ in OF_IDS))
    with pytest.raises(PipelineError) as caught:
        validated(paths, suite, tmp_path)
    told, page = str(caught.value), (tmp_path / "docs.html").read_text()
    assert [said for _, said in OF_IDS if said not in told] == []
    assert "(min_value, max_value: not shown, for an ID column)" in page
    assert not any(str(ID + n) in text for n in range(4) for text in (told, page))


def test_many_failures_are_counted_and_the_first_are_named(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    wanted = [expect("column_to_exist", column=f"c{number:02}") for number in range(SHOWN + 3)]
    with pytest.raises(PipelineError, match=r"^13 of 13 .*c09: expect_column_to_exist; and 3 more\. Mend"):
        validated(paths, put(storage_env, bucket, *wanted), tmp_path)


def test_the_docs_need_nothing_from_the_net_and_are_the_same_bytes_again(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    suite = put(storage_env, bucket, *(expectation for expectation, _ in EVERY_KIND))
    pages = []
    for _ in range(2):
        with pytest.raises(PipelineError):
            validated(paths, suite, tmp_path)
        pages.append((tmp_path / "docs.html").read_text())
    assert pages[0] == pages[1]
    assert not [word for word in ("http", "<script", "<link", "<img", "url(") if word in pages[0]]


def test_the_step_reports_for_the_pipeline_that_it_is_in(paths: tuple[str, str], tmp_path: Path) -> None:
    outputs = SimpleNamespace(path=str(tmp_path / "docs.html"))
    told = {"suite_uri": "", "run_key": "k", "report_uri": tmp_path.as_uri(), "docs": outputs}
    parts = dict(zip(("train", "test"), (SimpleNamespace(path=path) for path in paths), strict=True))
    validate_data.python_func(**parts, **told, pipeline_name="wine")
    assert json.loads((tmp_path / "validate_data.json").read_text())["job"]["name"] == "wine.validate_data"


def test_without_a_suite_nothing_is_claimed(paths: tuple[str, str], tmp_path: Path) -> None:
    result, step = validated(paths, "", tmp_path, (tmp_path / "reports").as_uri())
    assert result == {"suite": "", "version": "", "expectations": 0, "failed": 0, "rows": 4, "success": True}
    assert step.inputs == []
    assert "nothing was checked" in (tmp_path / "reports/validation.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "is no JSON: write it with Great Expectations 1.x", id="no_json"),
        pytest.param("[]", "has no list `expectations`", id="a_list"),
        pytest.param('{"expectations": []}', "has no expectation in it", id="nothing_expected"),
        pytest.param('{"expectations": [3]}', "expectation 1 needs a `type` and `kwargs`", id="a_number"),
        pytest.param(
            '{"expectations": [{"expectation_type": "expect_column_to_exist", "kwargs": {"column": "age"}}]}',
            r"expectation 1 was written by Great Expectations 0\.x",
            id="an_old_suite",
        ),
        pytest.param(
            json.dumps({"expectations": [BETWEEN, expect("column_to_be_nice", column="age")]}),
            "expectation 2: Great Expectations .* has no expect_column_to_be_nice",
            id="an_unknown_type",
        ),
        pytest.param(
            json.dumps(
                {"expectations": [expect("column_max_to_be_between", column="age", max_value={"$PARAMETER": "m"})]}
            ),
            r"expectation 1 \(expect_column_max_to_be_between\) has a suite parameter; write the value",
            id="a_suite_parameter",
        ),
        pytest.param(
            json.dumps({"expectations": [expect("column_values_to_be_between", min_value=3, most=1)]}),
            r"expectation 1 \(expect_column_values_to_be_between\) has wrong kwargs: column: field required; most: ",
            id="wrong_kwargs",
        ),
        pytest.param(
            json.dumps(
                {
                    "expectations": [
                        expect("column_to_exist", column="a", row_condition="@f()", condition_parser="pandas")
                    ]
                }
            ),
            "has a row_condition, which would run as code",
            id="code",
        ),
    ],
)
def test_what_is_no_suite_is_said_so(
    content: str, message: str, storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    storage_env.client.put_object(bucket, "suite.json", io.BytesIO(content.encode()), len(content))
    with pytest.raises(PipelineError, match=message):
        validated(paths, f"s3://{bucket}/suite.json", tmp_path)


def test_a_suite_that_is_not_there_is_named(
    storage_env: Any, bucket: str, paths: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=f"there is no object s3://{bucket}/suite.json"):
        validated(paths, f"s3://{bucket}/suite.json", tmp_path)


def test_the_demo_s_people_hold_the_demo_s_suite(
    storage_env: Any, bucket: str, demo: ModuleType, people: Any, tmp_path: Path
) -> None:
    content = (ROOT / "deploy/demo/suite.json").read_bytes()
    storage_env.client.put_object(bucket, "suite.json", io.BytesIO(content), len(content))
    rows = demo.features(people)
    rows = rows.append_column("income", pa.array([">50K"] * rows.num_rows))
    paths = str(tmp_path / "train"), str(tmp_path / "test")
    for path, part in zip(paths, (rows.slice(0, 5000), rows.slice(5000)), strict=True):
        pq.write_table(part, path)
    result, _ = validated(paths, f"s3://{bucket}/suite.json", tmp_path)
    assert (result["success"], result["expectations"], result["rows"]) == (True, 13, rows.num_rows)


def test_a_training_on_data_that_fails_ends_there_and_leaves_the_docs(
    run: Any, model_repository: Any, feature_bucket: str, storage_env: Any, bucket: str, people: Any, tmp_path: Path
) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "deploy/demo/model_repo/v1").iterdir() if path.is_file()}
    repository, revision = model_repository(files)
    params = {
        "repository": repository,
        "revision": revision,
        "as_of": people.now.isoformat(),
        "suite_uri": put(storage_env, bucket, expect("column_values_to_be_between", column="age", max_value=60)),
        "run_key": "train-invalid",
        "report_uri": tmp_path.as_uri(),
    }
    done = run("income-training", params)
    assert done.code != 0
    event = json.loads((tmp_path / "validate_data.json").read_text())
    message = event["run"]["facets"]["errorMessage"]["message"]
    assert "1 of 1 expectations" in message
    assert "age: expect_column_values_to_be_between (" in message
    assert f"the docs are {tmp_path.as_uri()}/validation.html" in message
    assert "1 failed" in (tmp_path / "validation.html").read_text()
    assert not list(tmp_path.glob("*_model.json"))  # nothing was fitted, evaluated, registered
