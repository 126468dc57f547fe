"""Structured logs: a static word, identifiers as fields, never a payload or a secret.

`set_up` is called once by each command; `bound` puts an event's, a rule's and a run's name on every line inside it.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import Processor

from service.settings import LogSettings

logger: structlog.stdlib.BoundLogger = structlog.get_logger("kfp-triggers")

_ALWAYS: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def set_up(settings: LogSettings) -> None:
    """Console lines for a person, JSON lines for a machine; other libraries' logs go the same way."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    last: list[Processor] = (
        # The plain traceback: rich's shows local variables, and with them headers, bodies and secrets.
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_ALWAYS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for chatty in ("httpx", "alembic", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # warns of each try; the adapters tell how it ended
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_ALWAYS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


@contextmanager
def bound(**names: str) -> Iterator[None]:
    """Every line inside carries these."""
    with structlog.contextvars.bound_contextvars(**names):
        yield
