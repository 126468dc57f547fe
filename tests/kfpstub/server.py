"""A KFP API server for tests: a process of its own, which behaves as the recordings in tests/recordings do.

    PYTHONPATH=tests python -m kfpstub.server --port 0 [--store PATH] [--multi-user --token T --namespace N]

prints its port as the first line and serves until it is killed. `tests/kfpserver.py` starts it; `/_stub` steers it, see
`control`. With a store the next process on the same path knows the same runs.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from kfpstub import control, experiments, faults, routes
from kfpstub.machine import Answer, Machine, Request, Settings
from kfpstub.refusals import Refused
from kfpstub.store import Store


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    machine: Machine

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name of the overridden argument
        """A test has the counts."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, parts.path, query, headers, body)
        try:
            self._send(self._answer(request))
        except faults.HangUp as end:
            self._hang_up(end.begun)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 -- the names that http.server calls

    def _answer(self, request: Request) -> Answer:
        if request.path.startswith("/_stub/"):
            return control.serve(self.machine, request)
        pattern, handler = routes.endpoint(request.method, request.path)
        self.machine.counts.request(pattern)

        def serve(bent: Request) -> Answer:
            try:
                return handler(self.machine, bent)
            except Refused as error:
                return Answer(error.status, error.body, {}, error.content_type)

        answer = faults.answer(self.machine, request, serve)
        self.machine.counts.answered(answer.status)
        return answer

    def _send(self, answer: Answer) -> None:
        self.wfile.write(_bytes(answer))

    def _hang_up(self, begun: Answer | None) -> None:
        """Without a word, or after half of it; the client reads a reset or a short body."""
        self.close_connection = True
        if begun is not None:
            whole = _bytes(begun)
            self.wfile.write(whole[: len(whole) // 2])
        self.connection.shutdown(socket.SHUT_RDWR)


def _bytes(answer: Answer) -> bytes:
    """Head and body in one piece: two writes would cost a delayed acknowledgement."""
    body = answer.body if isinstance(answer.body, bytes | str) else json.dumps(answer.body, ensure_ascii=False)
    body = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": answer.content_type, "Content-Length": str(len(body)), **answer.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} .\r\n{head}\r\n".encode() + body


class Server(ThreadingHTTPServer):
    """A thread a connection; they end with the process."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news; anything else is the stub's own fault, and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # object, because it is only handed on


def _watch(parent: int) -> None:
    """The stub does not outlive the tests, not even those that are killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main() -> None:
    """Until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--pending", type=float, default=0.2, help="seconds before a run is RUNNING")
    parser.add_argument("--running", type=float, default=0.5, help="seconds before it has SUCCEEDED")
    parser.add_argument("--multi-user", action="store_true")
    parser.add_argument("--token", default="the-token", help="the one that is good in multi-user mode")
    parser.add_argument("--namespace", default="team", help="the one that its user may use")
    parser.add_argument("--parent", type=int, help="end when this process is no longer the parent")
    given = parser.parse_args()
    settings = Settings(given.pending, given.running, multi_user=given.multi_user)
    settings.tokens, settings.namespaces = {given.token: "user@example.com"}, {"user@example.com": [given.namespace]}
    Handler.machine = Machine(Store(given.store), settings)
    experiments.first(Handler.machine)
    if given.parent:
        threading.Thread(target=_watch, args=(given.parent,), daemon=True).start()
    server = Server(("127.0.0.1", given.port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
