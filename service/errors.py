"""The two words that cross a port, and nothing else does.

An adapter translates its client library's exceptions into one of these and keeps the original as `__cause__`; the
flow turns them into a wait or an end. The message is for a person and carries no secret.
"""


class ServiceError(Exception):
    """Something outside did not do what was asked."""

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or (self.__doc__ or "").strip()
        super().__init__(self.detail)


class Temporary(ServiceError):
    """The same call may succeed later.

    `delay` says in how many seconds it is worth asking again; `nothing_happened` that the call surely had no effect
    (a connection refused, a full backend), which a time-out cannot say.
    """

    def __init__(self, detail: str = "", *, delay: float = 5.0, nothing_happened: bool = False) -> None:
        super().__init__(detail)
        self.delay = delay
        self.nothing_happened = nothing_happened


class Permanent(ServiceError):
    """The same call will fail again: retries are useless."""


class Refused(Exception):
    """The service will not start or continue like this; the message says what to do. Printed without a traceback."""
