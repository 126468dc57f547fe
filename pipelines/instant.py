"""Moments as parameters carry them: RFC 3339 text, always with an offset."""

from datetime import UTC, datetime

from pipelines.errors import PipelineError


def parse_instant(text: str, parameter: str) -> datetime:
    """The moment in UTC; a time without an offset is refused, for it means another moment on another machine."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        raise PipelineError(f"{parameter} is not within the years 1 to 9999 in UTC: {text[:40]!r}") from None
    except ValueError:
        raise PipelineError(
            f"{parameter} is not an RFC 3339 time such as 2026-11-21T08:30:00Z: {text[:40]!r}"
        ) from None
    raise PipelineError(f"{parameter} has no offset; write 2026-11-21T08:30:00Z or +01:00, not {text[:40]!r}")
