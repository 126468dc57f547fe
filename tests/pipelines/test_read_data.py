"""Files of ids in every format: recognised by their content, the same rows out of each, and a plain word for a bad one.

A test of a component's functions needs no KFP and no storage: a file in, Parquet out.
"""

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.read_data.columns import Asked
from pipelines.components.read_data.formats import convert
from pipelines.errors import PipelineError

CSV = b"user_id,word\n7,a\nx,\n8,c\n"
LINES = b'{"user_id": 7, "word": "a"}\n{"user_id": "x", "word": ""}\n{"user_id": "8", "word": "c"}\n'
KEPT = Asked(keep_columns=("*",))


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


TABLE = parquet(user_id=["7", "x", "8"], word=["a", "", "c"])


def read(
    content: bytes, folder: Path, asked: Asked | None = None, name: str = "ids"
) -> tuple[str, list[dict[str, Any]]]:
    source, output = folder / "source", folder / "requested"
    source.write_bytes(content)
    found = convert(source, f"s3://b/{name}", output, asked)
    rows = pq.read_table(output).to_pylist()
    assert found.rows == len(rows)
    return found.format, rows


def message(content: bytes, folder: Path, asked: Asked | None = None, name: str = "ids") -> str:
    with pytest.raises(PipelineError) as caught:
        read(content, folder, asked, name)
    assert [path.name for path in folder.iterdir()] == ["source"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "format_", "lines"),
    [
        (CSV, "CSV", [2, 3, 4]),
        (gzip.compress(CSV), "gzip CSV", [2, 3, 4]),
        (gzip.compress(CSV[:14]) + gzip.compress(CSV[14:]), "gzip CSV", [2, 3, 4]),
        (TABLE, "Parquet", [2, 3, 4]),
        (gzip.compress(TABLE), "gzip Parquet", [2, 3, 4]),
        (LINES, "JSON Lines", [1, 2, 3]),
        (gzip.compress(b"\xef\xbb\xbf\n" + LINES.replace(b"\n", b"\r\n")), "gzip JSON Lines", [2, 3, 4]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_is_known_by_its_content_and_gives_the_same_rows(
    content: bytes, format_: str, lines: list[int], tmp_path: Path
) -> None:
    found, rows = read(content, tmp_path, KEPT, "misleading.txt")
    assert found == format_
    assert [row["line"] for row in rows] == lines
    assert [(row["user_id"], row["word"]) for row in rows] == [(7, "a"), (None, ""), (8, "c")]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, None, -3], pa.int8()), [1, None, -3]),
        (pa.array([1, 2**63], pa.uint64()), [1, None]),
        (pa.array(["1", "1.0", None], pa.large_string()), [1, None, None]),
        (pa.array(["1", " 2 "]).dictionary_encode(), [1, 2]),
    ],
    ids=["int8", "uint64", "large_string", "dictionary"],
)
def test_ids_of_parquet_may_be_whole_numbers_or_text(ids: pa.Array, expected: list[int | None], tmp_path: Path) -> None:
    assert [row["user_id"] for row in read(parquet(user_id=ids), tmp_path)[1]] == expected


@pytest.mark.parametrize(
    ("value", "number"), [("42", 42), ('"42"', 42), ("42.0", None), ("true", None), ("null", None)]
)
def test_an_id_of_json_is_a_whole_number_or_text_of_one(value: str, number: int | None, tmp_path: Path) -> None:
    content = f'{{"user_id": {value}}}\n{{"user_id": 7}}\n'.encode()
    assert [row["user_id"] for row in read(content, tmp_path)[1]] == [number, 7]


def test_kept_columns_keep_their_text_or_their_parquet_type(tmp_path: Path) -> None:
    assert read(b"user_id,zip\n7,007\n", tmp_path, KEPT)[1][0]["zip"] == "007"
    assert read(parquet(user_id=[7], zip=[7.5]), tmp_path, KEPT)[1][0]["zip"] == 7.5
    assert read(b'{"user_id": 7, "zip": [1, "\xc3\xbc"]}', tmp_path, KEPT)[1][0]["zip"] == '[1, "ü"]'


def test_only_the_columns_asked_for_are_kept_in_the_order_asked_for(tmp_path: Path) -> None:
    [row] = read(b"a,user_id,b,c\n1,7,2,3\n", tmp_path, Asked(keep_columns=("c", "a")))[1]
    assert list(row.items()) == [("line", 2), ("user_id", 7), ("c", "3"), ("a", "1")]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01T12:00:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01 14:00:00.25+02:00", datetime(2026, 11, 1, 12, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-01T12:00:00.123456789Z", datetime(2026, 11, 1, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-01T12:00:00", None), ("2026-02-30T12:00:00Z", None), ("yesterday", None), ("", None),
        ("0001-01-01T00:00:00+14:00", None), ("9999-12-31T23:59:59-05:00", None),
    ],
)  # fmt: skip
def test_a_row_s_own_moment_has_an_offset_or_the_row_is_invalid(
    text: str, moment: datetime | None, tmp_path: Path
) -> None:
    content = f"user_id,event_timestamp\n7,2026-11-01T12:00:00Z\n8,{text}\n".encode()
    rows = read(content, tmp_path, Asked(as_of_column="event_timestamp"))[1]
    assert [row["(as_of)"] for row in rows] == [datetime(2026, 11, 1, 12, tzinfo=UTC), moment]
    assert list(rows[0]) == ["line", "user_id", "(as_of)"]


def test_moments_of_parquet_are_timestamps_with_a_zone_or_text(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    asked = Asked(as_of_column="t")
    for values in (pa.array([moment], pa.timestamp("ns", "Asia/Tokyo")), ["2026-11-01T12:00:00Z"]):
        assert read(parquet(user_id=[7], t=values), tmp_path, asked)[1][0]["(as_of)"] == moment
    (tmp_path / "requested").unlink()
    naive = pa.array([moment.replace(tzinfo=None)], pa.timestamp("us"))
    assert "t is timestamp[us] in s3://b/ids" in message(parquet(user_id=[7], t=naive), tmp_path, asked)


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        (b"user_id\n9000.0\nx\n", KEPT, "not one user_id in s3://b/ids (2 rows) can be read; write a whole number"),
        (b'{"user_id": 9000.0}\n{"user_id": null}\n', KEPT, "not one user_id in s3://b/ids (2 rows)"),
        (parquet(user_id=["9000.0", None]), KEPT, "not one user_id in s3://b/ids (2 rows)"),
        (parquet(user_id=pa.array([2**63], pa.uint64())), KEPT, "not one user_id in s3://b/ids (1 rows)"),
        (b"user_id,t\n7,2026-10-02 00:00:00\n8,\n", Asked("t"), "as_of_column: not one t in s3://b/ids (2 rows)"),
        (b"user_id,t\n7,2026-10-02\n", Asked("t"), "write an RFC 3339 time with an offset"),
        (b"user_id\n9000\n", Asked("user_id"), "as_of_column: not one user_id in s3://b/ids (1 rows)"),
        (b'{"user_id": 9000}\n', Asked("user_id"), "as_of_column: not one user_id in s3://b/ids (1 rows)"),
    ],
)
def test_a_column_that_cannot_be_read_at_all_ends_the_run(
    content: bytes, asked: Asked, said: str, tmp_path: Path
) -> None:
    told = message(content, tmp_path, asked)
    assert said in told
    assert "9000" not in told


def test_a_column_with_nothing_in_it_is_invalid_rows(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"user_id,t,x\n,,\n , ,\n7,,\n")
    found = convert(tmp_path / "source", "s3://b/ids", tmp_path / "requested", Asked("t"))
    assert (found.rows, found.invalid, found.ids, found.moments) == (3, 3, 2, 3)


BIG = json.dumps({"user_id": 1, "deep": "x"}).replace('"x"', "[" * 100_000 + "]" * 100_000).encode()


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        pytest.param(gzip.compress(CSV)[:-9], KEPT, "is no whole gzip file", id="gzip_cut_off"),
        pytest.param(gzip.compress(CSV) + b"rubbish", KEPT, "is no whole gzip file", id="gzip_and_more"),
        pytest.param(gzip.compress(b""), KEPT, "is empty", id="gzip_of_nothing"),
        pytest.param(gzip.compress(gzip.compress(CSV)), KEPT, "is gzip twice; compress it once", id="gzip_twice"),
        pytest.param(b"PK\x03\x04\x14\0user_id", KEPT, "is a zip or Excel file; save it as CSV", id="zip"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1", KEPT, "is an Excel file; save it as CSV", id="old_excel"),
        pytest.param(parquet(**{"900017": [1]}), KEPT, "has no header that names user_id", id="parquet_of_ids"),
        pytest.param(TABLE[:-20], KEPT, "is no whole Parquet file", id="parquet_cut_off"),
        pytest.param(parquet(id=[7]), KEPT, "has no column user_id; columns found", id="parquet_without_ids"),
        pytest.param(parquet(user_id=[7.0]), KEPT, "user_id is double", id="parquet_with_floats"),
        pytest.param(parquet(user_id=pa.array([], pa.int64())), KEPT, "no data rows", id="parquet_without_rows"),
        pytest.param(LINES + b"[900017]\n", KEPT, "line 4 is not one JSON object", id="json_of_another_kind"),
        pytest.param(LINES + b'{"user_id": 900017', KEPT, "line 4 is not one JSON object", id="json_cut_off"),
        pytest.param(BIG, KEPT, "line 1 is not one JSON object", id="json_too_deep"),
        pytest.param(LINES + b'{"user_id": "\xff"}', KEPT, "not UTF-8 text at line 4", id="json_in_latin_1"),
        pytest.param(b'{"id": 900017}\n', KEPT, "has no column user_id; columns found", id="json_without_ids"),
        pytest.param(
            LINES + b'{"user_id": 7, "900017": 1}', KEPT, "has 1 more that are not shown at line 4", id="json_key_of_id"
        ),
        pytest.param(LINES + b'{"user_id": 7, "more": 1}', KEPT, "has more at line 4", id="json_with_a_later_column"),
        pytest.param(
            CSV, Asked(keep_columns=("wort",)), "no column 'wort'; columns found: user_id, word", id="no_column"
        ),
        pytest.param(CSV, Asked(as_of_column="time"), "as_of_column: s3://b/ids has no column 'time'", id="no_moments"),
        pytest.param(b"user_id,status\n7,a\n", KEPT, "column of its own called status", id="a_name_of_the_output"),
        pytest.param(b"user_id,a,a\n7,1,2\n", KEPT, "a would stand in the output twice", id="a_name_twice"),
    ],
)
def test_a_bad_file_is_refused_in_words_without_a_row_and_leaves_no_output(
    content: bytes, asked: Asked, said: str, tmp_path: Path
) -> None:
    told = message(content, tmp_path, asked)
    assert said in told
    assert "9000" not in told


@pytest.mark.parametrize(
    ("name", "said"), [("x.parquet", "is no Parquet file"), ("x.jsonl.gz", "line 1 is not one JSON object")]
)
def test_a_file_that_is_not_what_its_name_promises_is_refused(name: str, said: str, tmp_path: Path) -> None:
    assert said in message(CSV, tmp_path, name=name)
