"""Times and sizes as people write them: `6h`, `1h30m`, `5GiB`.

Called for rules, settings and sources. Raises ValueError with what to write instead.
"""

import re
from datetime import timedelta

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION = re.compile(r"(?:[0-9]{1,6}[dhms])+")
_STEP = re.compile(r"([0-9]+)([dhms])")
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]+)")


def duration(text: str) -> timedelta:
    """`90s`, `6h`, `1d12h`; more than nothing and at most a year."""
    if not _DURATION.fullmatch(text):
        raise ValueError("not a time: write a number with a unit, e.g. `30s`, `15m`, `6h`, `2d` or `1h30m`")
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in _STEP.findall(text))
    if not 0 < seconds <= 366 * 86_400:
        raise ValueError("must be more than nothing and at most a year")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """`5GiB`, `500 MB`: bytes."""
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _BYTES:
        raise ValueError(f"not a size: write a number with a unit ({', '.join(_BYTES)}), e.g. `5GiB`")
    return int(found[1]) * _BYTES[found[2]]
