"""How long a client may take for a request's head, how large that may be, and how many connections there may be.

uvicorn bounds none of the three: whoever opens connections and says nothing would take them from everybody. Bodies are
bounded in `service.web.hooks`. Used by `service.web.server`.
"""

import asyncio
import resource
from pathlib import Path

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 64 << 10  #: bytes
MOST = 10_000
RESERVE = 24  #: descriptors that are kept for the store, backends and files; more are open when it starts
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def room() -> int:
    """How many connections the process's descriptors leave room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = Path("/proc/self/fd")
    opened = len(list(descriptors.iterdir())) if descriptors.exists() else RESERVE
    return MOST if limit == resource.RLIM_INFINITY else max(8, min(MOST, limit - opened - RESERVE))


def bounded(seconds: float, at_most: int) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with the bounds.

    Of one connection too many, the one goes that has waited longest for a request; when all are at work, the new one.
    """
    idle: dict[HttpToolsProtocol, None] = {}

    class Bounded(HttpToolsProtocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None
        _head = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
            super().connection_made(transport)
            self._waits()
            if len(self.connections) > at_most:
                oldest = next(iter(idle))
                if oldest is self:
                    transport.write(BUSY)
                oldest.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._waits()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._late is not None:
                self._head += len(data)
                if self._head > HEAD:
                    self.transport.close()

        def on_headers_complete(self) -> None:
            self._works()
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing() and self._late is None:
                idle[self] = None  # how long it may stay is uvicorn's timeout_keep_alive

        def connection_lost(self, exc: Exception | None) -> None:
            self._works()
            super().connection_lost(exc)

        def _waits(self) -> None:
            self._works()
            idle[self], self._head = None, 0
            self._late = self.loop.call_later(seconds, self.transport.close)

        def _works(self) -> None:
            idle.pop(self, None)
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded
