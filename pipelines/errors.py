"""The one error that a step ends with on purpose.

Raised by every module here; written into the run's report as it is.
"""


class PipelineError(Exception):
    """The step can't do what it was asked to; the message says what was found and what to change.

    It is read by people and kept in reports, so it holds no id, no row and no secret.
    """
