"""GitHub, GitLab and Gitea as far as we speak to them: a real HTTP server with the paths and shapes they document.

A stand-in for foreign systems. It keeps statuses and comments as the hosts do, refuses what they refuse, and can be
told to fail. https://docs.github.com/rest/commits, https://docs.gitlab.com/api/commits and …/api/discussions, Gitea's
own /api/swagger.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {
    "github": ("Authorization", "Bearer the-token-of-the-host"),
    "gitlab": ("PRIVATE-TOKEN", "the-token-of-the-host"),
    "gitea": ("Authorization", "token the-token-of-the-host"),
}
REPOSITORY = "acme/model"


@dataclass
class Host:
    """What one host knows."""

    kind: str
    address: str = ""
    statuses: list[dict[str, Any]] = field(default_factory=list)  #: in the order in which they came
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)  #: statuses of the next answers, before any is right
    pull: int = 7  #: of Gitea: the request that brought the commit; 0 for none
    headers: dict[str, str] = field(default_factory=dict)  #: of a failure

    def latest(self) -> dict[str, Any]:
        """The status as a reader sees it: the last of its name."""
        return self.statuses[-1]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """By whose paths they are."""
        return getattr(self, f"_{self.kind}")(method, path, query, body)  # type: ignore[no-any-return]

    def _github(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        root = f"/repos/{REPOSITORY}"
        if method == "POST" and re.fullmatch(f"{root}/statuses/[0-9a-f]{{40}}", path):
            if len(body["description"]) > 140:
                return 422, {"message": "description is too long (maximum is 140 characters)"}
            return self._status(body["state"], {"error", "failure", "pending", "success"}, body)
        if re.fullmatch(f"{root}/commits/[0-9a-f]{{40}}/comments", path):
            return self._comments(method, query, body)
        if method == "PATCH" and (found := re.fullmatch(f"{root}/comments/([0-9]+)", path)):
            return self._edit(int(found[1]), body)
        return 404, {"message": "Not Found"}

    def _gitea(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        root = f"/repos/{REPOSITORY}"
        if method == "POST" and re.fullmatch(f"{root}/statuses/[0-9a-f]{{40}}", path):
            return self._status(body["state"], {"error", "failure", "pending", "success", "warning"}, body)
        if re.fullmatch(f"{root}/commits/[0-9a-f]{{40}}/pull", path):
            return (200, {"number": self.pull}) if self.pull else (404, {"message": "pull request does not exist"})
        if path == f"{root}/issues/{self.pull}/comments":
            return self._comments(method, query, body)
        if method == "PATCH" and (found := re.fullmatch(f"{root}/issues/comments/([0-9]+)", path)):
            return self._edit(int(found[1]), body)
        return 404, {"message": "Not Found"}

    def _gitlab(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        root = "/projects/acme%2Fmodel"
        if method == "POST" and re.fullmatch(f"{root}/statuses/[0-9a-f]{{40}}", path):
            if self.statuses and self.statuses[-1]["state"] == body["state"]:
                return 400, {"message": f"Cannot transition status via :enqueue from :{body['state']} (Reason(s): ...)"}
            return self._status(body["state"], {"pending", "running", "success", "failed", "canceled"}, body)
        if re.fullmatch(f"{root}/repository/commits/[0-9a-f]{{40}}/statuses", path):
            return 200, [{"name": one["context"], "status": one["state"]} for one in self.statuses[-1:]]
        if re.fullmatch(f"{root}/repository/commits/[0-9a-f]{{40}}/discussions", path):
            if method == "POST":
                return self._comments(method, query, body)
            threads = [{"id": f"d{one['id']}", "notes": [one]} for one in self.comments]
            return 200, self._page(threads, query)
        found = re.fullmatch(f"{root}/repository/commits/[0-9a-f]{{40}}/discussions/d([0-9]+)/notes/([0-9]+)", path)
        if method == "PUT" and found and found[1] == found[2]:
            return self._edit(int(found[1]), body)
        return 404, {"message": "404 Not Found"}

    def _status(self, state: str, known: set[str], body: Any) -> tuple[int, Any]:
        if state not in known:
            return 422, {"message": f"state is not one of {sorted(known)}"}
        self.statuses.append(body)
        return 201, body

    def _comments(self, method: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, self._page(self.comments, query)
        self.comments.append({"id": 100 + len(self.comments), "body": body["body"]})
        return 201, self.comments[-1]

    def _edit(self, number: int, body: Any) -> tuple[int, Any]:
        for one in self.comments:
            if one["id"] == number:
                one["body"] = body["body"]
                return 200, one
        return 404, {"message": "Not Found"}

    def _page(self, items: list[Any], query: dict[str, list[str]]) -> list[Any]:
        size = int((query.get("per_page") or query.get("limit") or ["30"])[0])
        page = int(query.get("page", ["1"])[0])
        return items[(page - 1) * size : page * size]


@contextmanager
def hosted(kind: str) -> Iterator[Host]:
    """One that listens on the loopback."""
    host = Host(kind)

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            host.asked.append(f"{self.command} {unquote(parts.path)}")
            name, token = TOKENS[kind]
            if host.fail:
                status, told = host.fail.pop(0), {"message": "not now"}
            elif self.headers.get(name) != token:
                status, told = 401, {"message": f"bad token {self.headers.get(name)}"}
            else:
                status, told = host.answer(
                    self.command, parts.path, parse_qs(parts.query), json.loads(raw) if raw else None
                )
            content = json.dumps(told).encode()
            self.send_response(status)
            for key, value in (host.headers if status >= 300 else {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = _handle  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
