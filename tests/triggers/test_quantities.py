"""Times and sizes as people write them."""

from datetime import timedelta

import pytest

from triggers.quantities import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("6h", 21_600), ("2d", 172_800), ("1h30m", 5_400)]
)
def test_a_time_is_a_number_with_a_unit(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "6", "6 h", "h", "-1h", "1.5h", "0s", "367d", "6H", "99999999d", "٣h"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"unit|more than nothing"):
        duration(text)


@pytest.mark.parametrize(("text", "count"), [("1B", 1), ("5GiB", 5 << 30), ("500 MB", 500_000_000), ("2kB", 2_000)])
def test_a_size_is_a_number_with_a_unit(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "5", "5 gigs", "GiB", "-1B", "1.5GiB", "5gib"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size(text)
