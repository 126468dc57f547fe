"""A proxy in front of any KFP API server: what the adapter asked is counted, and its pages may be made small.

Used by `contract.target`. It adds no credentials and changes nothing but `page_size`.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOT_PASSED_ON = {"host", "connection", "content-length", "accept-encoding"}


class Proxy:
    """Where it listens, and what went through: `GET /apis/v2beta1/runs/ID`, one a request."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[str] = []

    def times(self, line: str) -> int:
        """How often that was asked; ids are written ID."""
        return self.asked.count(line)


@contextmanager
def proxied(endpoint: str, client: httpx.Client, page_size: int = 0) -> Iterator[Proxy]:
    """As long as the context lasts. `page_size`: that of every list, whatever was asked."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name of the overridden argument
            """A test has the counts."""

        def _serve(self) -> None:
            path = urlsplit(self.path)
            proxy.asked.append(f"{self.command} {_ID.sub('ID', path.path)}")
            query = dict(parse_qsl(path.query, keep_blank_values=True))
            if page_size and self.command == "GET" and not _ID.search(path.path.rpartition("/")[2]):
                query["page_size"] = str(page_size)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: text for name, text in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            url = f"{endpoint.rstrip('/')}{path.path}?{urlencode(query)}"
            answer = client.request(self.command, url, headers=headers, content=body)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", ""))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 -- the names that http.server calls

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy = Proxy(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
