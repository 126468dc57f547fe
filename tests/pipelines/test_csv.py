"""A CSV file is read the fast way where that cannot matter: what comes out is what the csv module alone would say."""

import csv
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.components.read_data import csv_file
from pipelines.components.read_data.columns import Asked
from pipelines.errors import PipelineError

Row = tuple[int, int | None, str | None]
IDS = st.sampled_from(["7", " 12", "-3", "+4", "", "x", "1.0", "٤", "9223372036854775807", "99999999999999999999", " "])
WORDS = st.sampled_from(["", "a", "ü", '"b"', '"c\nd"', '"e""f"', 'g"', " h ", "\t", "i,j", "\x00", "\u2028"])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n \n", "\r\n\r\n"])
LINES = st.lists(st.tuples(IDS, st.one_of(st.none(), WORDS), ENDS), max_size=12)


def by_the_csv_module(text: str, width: int) -> list[Row] | None:
    """The rules, written once more and slowly; None where the file is no CSV."""
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)
    reader = csv.reader(lines, strict=True)
    rows: list[Row] = []
    start = 1
    try:
        for record in reader:
            blank = reader.line_num == start and not lines[start - 1].strip()
            if start > 1 and not blank:
                kept = record[1] if width > 1 and len(record) > 1 else None
                rows.append((start, number(record[0]), kept))
            start = reader.line_num + 1
    except csv.Error:
        return None
    return rows


def number(text: str) -> int | None:
    found = re.fullmatch(r"\s*([+-]?[0-9]+)\s*", text)
    value = int(found[1]) if found else None
    return value if value is not None and -(2**63) <= value < 2**63 else None


@pytest.mark.parametrize("block", [1, 7, 40, 4096])
@settings(deadline=None, max_examples=150)
@given(wide=st.booleans(), lines=LINES, cut=st.booleans())
def test_the_fast_way_and_the_csv_module_agree(
    block: int, wide: bool, lines: list[tuple[str, str | None, str]], cut: bool
) -> None:
    text = "user_id,word\n" if wide else "user_id\n"
    for user_id, word, end in lines:
        text += (user_id if word is None or not wide else f"{user_id},{word}") + end
    text = text.rstrip("\r\n") if cut and lines else text
    expected = by_the_csv_module(text, 2 if wide else 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(csv_file, "BLOCK", block)
        asked = Asked(keep_columns=("word",) if wide else ())
        try:
            read = list(csv_file.requested(io.BytesIO(text.encode()), asked, "s3://b/ids.csv"))
        except PipelineError:
            assert expected is None
            return
    found = [row for rows in read for row in rows.table.to_pylist()]
    assert [(row["line"], row["user_id"], row.get("word")) for row in found] == expected


def test_a_file_without_a_quote_is_read_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_strict", None)
    content = b"user_id,word\r\n" + b"".join(b"%d,w\r\n" % number for number in range(1000))
    read = list(csv_file.requested(io.BytesIO(content), Asked(), "s3://b/ids.csv"))
    assert sum(rows.table.num_rows for rows in read) == 1000
