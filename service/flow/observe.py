"""What a run's reports say of a model, as observations: bounded and checked, for the run's code is not trusted.

A report may carry `observation`, or a list of `observations`, in the facet of ours; docs/monitoring.md has the shape.
Called by `service.flow.record`, which keeps them.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from service.log import logger
from service.records import Observation

MAX_OBSERVATIONS = 20  #: of one report: versions whose predictions one file of labels may be about
MAX_COLUMNS = 200  #: of one observation; those that have moved most are kept
MAX_MEASURES = 50
MAX_NAME = 200
MAX_URI = 2048
NUMBERS = ("psi", "statistic", "p_value", "missing", "reference_missing", "rows")
TESTS = ("ks", "chi2")
SCORE = "(score)"  #: the column that the predictions themselves go by
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)  #: near the year 1 a time of another zone is none in UTC
AHEAD = timedelta(days=1)  #: later than this is no moment that a run can know of; it would be the newest for ever


def observations_of(facts: Mapping[str, Any], run_key: str, now: datetime) -> Iterator[Observation]:
    """The observations in a report's own facet; what is none of ours is told in the log and passed over."""
    several = facts.get("observations")
    told = [facts["observation"]] if "observation" in facts else []
    told += several if isinstance(several, list) else []
    for one in told[:MAX_OBSERVATIONS]:
        try:
            yield _observation(one, run_key, now)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            logger.warning("observation_not_understood", problem=str(error)[:200])


def _observation(told: Mapping[str, Any], run_key: str, now: datetime) -> Observation:
    kind = told["kind"]
    if kind not in ("drift", "quality"):
        raise ValueError("its kind is neither drift nor quality")
    as_of = datetime.fromisoformat(told["as_of"])
    if as_of < EARLIEST:
        raise ValueError("its as_of is before 1970")
    if as_of > now + AHEAD:
        raise ValueError("its as_of is in the future")
    figures: dict[str, Any] = {"coverage": _share(told.get("coverage", 1.0))}
    if kind == "drift":
        columns = {_name(name): _column(column) for name, column in told["columns"].items()}
        figures["columns"] = _most_moved(columns)
        figures["columns_left_out"] = len(columns) - len(figures["columns"])
    else:
        measures = list(told["figures"].items())[:MAX_MEASURES]
        figures["measures"] = {_name(name): _number(value) for name, value in measures}
    return Observation(
        run_key=run_key,
        kind=kind,
        model=_name(told["model"]),
        version=_whole(told["version"], 2**31 - 1),
        as_of=as_of,
        subject=_text(told.get("subject", ""), MAX_URI),
        rows=_whole(told["rows"], 2**53),
        figures=figures,
        created_at=now,
    )


def _column(told: Mapping[str, Any]) -> dict[str, Any]:
    if told["test"] not in TESTS:
        raise ValueError(f"a column's test is none of {', '.join(TESTS)}")
    return {"test": told["test"]} | {name: _number(told[name]) for name in NUMBERS}


def _most_moved(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """In the order told; where there are too many the scores, and those with the largest PSI."""
    ranked = sorted(columns, key=lambda name: (name != SCORE, -columns[name]["psi"], name))
    kept = set(ranked[:MAX_COLUMNS])
    return {name: column for name, column in columns.items() if name in kept}


def _name(value: Any) -> str:
    found = _text(value, MAX_NAME)
    if not found:
        raise ValueError("a name is empty")
    return found


def _text(value: Any, at_most: int) -> str:
    """It becomes a label and a line on a terminal: no control character, no half of a letter."""
    if not isinstance(value, str) or len(value) > at_most or not value.isprintable():
        raise ValueError(f"a text is too long, or has other signs than letters: {str(value)[:40]!r}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"not a finite number: {str(value)[:40]!r}")
    return value


def _share(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise ValueError("its coverage is not between 0 and 1")
    return float(value)


def _whole(value: Any, at_most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most:
        raise ValueError(f"not a whole number of the right size: {str(value)[:40]!r}")
    return value
