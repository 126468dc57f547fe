"""A CSV file's requested rows."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.components.read_data.formats import convert
from pipelines.components.read_data.ids import parse_id
from pipelines.errors import PipelineError

Rows = list[tuple[int, int | None]]


def rows_of(content: bytes, folder: Path) -> Rows:
    source, output = folder / "ids.csv", folder / "ids.parquet"
    source.write_bytes(content)
    read = convert(source, "s3://user-ids/ids.csv", output)
    table = pq.read_table(output)
    found = list(zip(table["line"].to_pylist(), table["user_id"].to_pylist(), strict=True))
    assert (read.rows, read.invalid) == (len(found), sum(number is None for _, number in found))
    return found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"user_id\n7\n5\n", [(2, 7), (3, 5)], id="lines_are_counted_from_the_header"),
        pytest.param(b"user_id\n7\n7\n", [(2, 7), (3, 7)], id="a_duplicate_keeps_its_row"),
        pytest.param(b"user_id\n7\n\n \t\n5", [(2, 7), (5, 5)], id="a_blank_line_is_no_requested_row"),
        pytest.param(b"\xef\xbb\xbfuser_id\r\n7\r\n", [(2, 7)], id="byte_order_mark_and_crlf_are_ok"),
        pytest.param(b"user_id\r7\r5\r", [(2, 7), (3, 5)], id="old_line_ends_are_ok"),
        pytest.param(b'name,user_id\n"a\nb",7\nc,5\n', [(2, 7), (4, 5)], id="a_record_lies_where_it_starts"),
        pytest.param(b'"user_id"\n"7"\n', [(2, 7)], id="quoted_fields_are_ok"),
        pytest.param(b'user_id\n"  "\n""\n', [(2, None), (3, None)], id="a_quoted_blank_is_an_invalid_id"),
        pytest.param(b"name,user_id\n,\nx\n", [(2, None), (3, None)], id="a_missing_field_is_an_invalid_id"),
        pytest.param(b"user_id,extra\n7,a,b,c\n", [(2, 7)], id="more_fields_than_columns_are_passed_over"),
        pytest.param(b"\n user_id \n7\n", [(3, 7)], id="a_blank_line_may_precede_the_header"),
        pytest.param(b"user_id\nx\n7\n", [(2, None), (3, 7)], id="one_bad_id_spoils_no_other"),
    ],
)
def test_requested_rows(content: bytes, expected: Rows, tmp_path: Path) -> None:
    assert rows_of(content, tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42), ("  42 ", 42), ("+5", 5), ("-7", -7), ("007", 7), ("-0", 0),
        ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None), ("9" * 5000, None), ("42.0", None), ("1e3", None), ("1_000", None),
        ("1,000", None), ("٤٢", None), ("４２", None), ("²", None), ("0x1f", None), ("--5", None),
        ("4 2", None), ("", None), ("nan", None),
    ],
)  # fmt: skip
def test_an_id_is_written_in_ascii_digits_and_fits_64_bits(text: str, number: int | None) -> None:
    assert parse_id(text) == number


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="an_empty_file"),
        pytest.param(b"user_id\n", "no data rows", id="a_header_alone"),
        pytest.param(b"user_id\n\n  \n", "no data rows", id="blank_lines_alone"),
        pytest.param(b"\n\n", "no column user_id; columns found (separated by commas): none", id="nothing_but_blank"),
        pytest.param(b"id,name\n1,a\n", "columns found (separated by commas): id, name", id="another_column"),
        pytest.param(b"id;name\n1;a\n", "columns found (separated by commas): id;name", id="another_separator"),
        pytest.param(b"User_ID\n1\n", "columns found (separated by commas): User_ID", id="another_case"),
        pytest.param(b"17\n18\n", "has no header", id="no_header"),
        pytest.param("größe,x\n".encode("latin-1"), "is not UTF-8 text; save it", id="latin_1_in_the_header"),
        pytest.param(b'user_id\n1000001.0\n1000002.0\n""\n', "(3 rows) can be read", id="ids_that_were_floats"),
        pytest.param(b"user_id,user_id\n1,2\n", "2 columns called user_id", id="the_column_twice"),
        pytest.param(b"user_id\n7\n\xe9\n", "not UTF-8", id="latin_1"),
        pytest.param("user_id\n7\n".encode("utf-16"), "not UTF-8", id="utf_16"),
        pytest.param(b'user_id\n7\n"8\n9\n', "no valid CSV after line 2", id="an_open_quote"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_no_output(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        rows_of(content, tmp_path)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.csv"]


@pytest.mark.parametrize(
    "content",
    [
        b'900017\n900018\n"900019',
        b"900017,campaign9000\n",
        b"900017;a\n",
        b"900017.0\n",
        b"a3f-9000\n",
        b"de9000\n",
        b"\x019000\n",
        b'[{"user_id": 900017}, {"user_id": 900018}]\n',
    ],
)
def test_a_message_never_quotes_an_id(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"has no header that names user_id|is a JSON array; write JSON Lines"
    ) as caught:
        rows_of(content, tmp_path)
    assert "9000" not in str(caught.value)
    assert str(caught.value).isprintable()
