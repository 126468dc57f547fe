"""GitHub, GitLab and Gitea, told what came of a commit: a status, and one comment. Fits `ports.CodeHost`.

Where to is the source's `answers.api` alone; a payload names no host. A repository and a sha go into the path quoted, a
redirect is not followed (the token would go along), an answer is read up to a bound, and no error repeats the token or
what the host said beyond one line of it.

https://docs.github.com/rest/commits/statuses, …/rest/commits/comments; https://docs.gitlab.com/api/commits and
…/api/discussions; Gitea's own /api/swagger.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from service.errors import Permanent, Temporary
from service.ports import CommitState, CommitStatus
from triggers.answers import Answers
from triggers.secretref import SecretReference
from triggers.sourcefile import Source

TIMEOUT = 10.0  #: seconds for one call
AT_MOST = 4 << 20  #: bytes of one answer
PAGE, PAGES = 100, 10  #: comments that are looked through for our own
DESCRIPTION = 140  #: characters: GitHub's limit, the least of them
MENDED = 60.0  #: seconds after which a token that was refused is worth another try

Json = Any


class CodeHosts:
    """All of them, by the sources' settings. Usable from many threads."""

    def __init__(self, home: Path) -> None:
        """`home` is where a token's file is looked for."""
        self._home = home

    def is_told(self, source: Source) -> bool:
        """Whether the source has `answers`."""
        return _settings(source) is not None

    def status(self, source: Source, repository: str, sha: str, status: CommitStatus) -> None:
        """Set it; told twice it is the same one."""
        self._api(source).status(repository, sha, status)

    def comment(self, source: Source, repository: str, sha: str, marker: str, text: str) -> bool:
        """Edit the comment that begins with the marker, else make it. False where the host has no place for one."""
        return self._api(source).comment(repository, sha, marker, f"{marker}\n{text}")

    def _api(self, source: Source) -> "_Api":
        settings = _settings(source)
        if settings is None:
            raise Permanent(f"source {source.name} has no `answers`")
        kind = settings.kind or source.type
        return _KINDS[kind](_Calls(settings.api, kind, _token(source.name, settings.token, self._home)))


def _settings(source: Source) -> Answers | None:
    found = getattr(source.config, "answers", None)
    return found if isinstance(found, Answers) else None


def _token(source: str, reference: SecretReference, home: Path) -> str:
    """Read at each use, so that a rotated one counts at once."""
    try:
        text = os.environ.get(reference.env, "") if reference.env else (home / reference.file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise Temporary(f"source {source}: cannot read the token in {reference}", delay=MENDED) from problem
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise Temporary(f"source {source}: {reference} is not set, or no single line of plain text", delay=MENDED)
    return token


class _Calls:
    """JSON over HTTP to one address."""

    def __init__(self, api: str, kind: str, token: str) -> None:
        self._api, self._kind, self._token = api, kind, token

    def ask(self, method: str, path: str, body: Json = None, **query: Any) -> Json:
        """The answer's JSON; Temporary or Permanent when there is none."""
        import httpx  # noqa: PLC0415  # a tenth of a second, which most commands do without

        try:
            with (
                httpx.Client(timeout=TIMEOUT, headers=self._headers(), follow_redirects=False) as client,
                client.stream(method, self._api + path, json=body, params=query or None) as answer,
            ):
                content = bytearray()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > AT_MOST:
                        raise Permanent(f"{self._kind}: an answer of more than {AT_MOST} bytes")
                self._check(answer.status_code, answer.headers, bytes(content))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Temporary(f"{self._kind} does not answer: {type(error).__name__}") from error
        try:
            return json.loads(content)
        except ValueError as error:
            raise Permanent(f"{self._kind}: its answer is no JSON: is `answers.api` the API's address?") from error

    def listed(self, path: str, **query: Any) -> Sequence[Json]:
        """The objects of a list; Permanent when it is none: something else answers there."""
        found = self.ask("GET", path, **query)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise Permanent(f"{self._kind}: its answer is no list: is `answers.api` the API's address?")
        return found

    def _headers(self) -> dict[str, str]:
        if self._kind == "gitlab":
            return {"PRIVATE-TOKEN": self._token}
        return {"Authorization": f"{'token' if self._kind == 'gitea' else 'Bearer'} {self._token}"}

    def _check(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        if status < 300:
            return
        said = f"{self._kind} answers {status}: {self._said(content)}"
        limited = status == 429 or (status == 403 and headers.get("x-ratelimit-remaining") == "0")
        if limited or "retry-after" in headers:
            after = headers.get("retry-after", "")
            raise Temporary(said, delay=float(after) if after.isdecimal() and len(after) < 5 else MENDED)
        if status >= 500 or status in {401, 403, 408}:  # a token's right is a person's to mend
            raise Temporary(said, delay=MENDED if status in {401, 403} else 5.0)
        raise Permanent(said)

    def _said(self, content: bytes) -> str:
        """The host's own word, one line of it, should it help a person."""
        with suppress(ValueError, AttributeError):
            said = json.loads(content).get("message", "")
            return " ".join(str(said).replace(self._token, "…").split())[:200]
        return "no reason that is JSON"


class _Api(Protocol):
    """What the three have in common."""

    def status(self, repository: str, sha: str, status: CommitStatus) -> None: ...
    def comment(self, repository: str, sha: str, marker: str, text: str) -> bool: ...


def _path(repository: str) -> str:
    return quote(repository, safe="/")


def _body(status: CommitStatus) -> dict[str, str]:
    told = {"state": str(status.state), "context": status.context, "description": status.description[:DESCRIPTION]}
    return told | ({"target_url": status.link} if status.link else {})


def _ours(calls: _Calls, path: str, marker: str) -> Json | None:
    """The comment that begins with our marker: others may quote it further down."""
    for page in range(1, PAGES + 1):
        found = calls.listed(path, per_page=PAGE, limit=PAGE, page=page)
        for one in found:
            if str(one.get("body") or "").startswith(marker):
                return one
        if len(found) < PAGE:
            return None
    return None


class _GitHub:
    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def status(self, repository: str, sha: str, status: CommitStatus) -> None:
        self._calls.ask("POST", f"/repos/{_path(repository)}/statuses/{sha}", _body(status))

    def comment(self, repository: str, sha: str, marker: str, text: str) -> bool:
        all_of_commit = f"/repos/{_path(repository)}/commits/{sha}/comments"
        if (found := _ours(self._calls, all_of_commit, marker)) is not None:
            self._calls.ask("PATCH", f"/repos/{_path(repository)}/comments/{int(found['id'])}", {"body": text})
        else:
            self._calls.ask("POST", all_of_commit, {"body": text})
        return True


class _Gitea:
    """It keeps no comments on commits: ours goes to the pull request that brought the commit, if one did."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def status(self, repository: str, sha: str, status: CommitStatus) -> None:
        self._calls.ask("POST", f"/repos/{_path(repository)}/statuses/{sha}", _body(status))

    def comment(self, repository: str, sha: str, marker: str, text: str) -> bool:
        try:
            number = int(self._calls.ask("GET", f"/repos/{_path(repository)}/commits/{sha}/pull")["number"])
        except Permanent:
            return False
        all_of_request = f"/repos/{_path(repository)}/issues/{number}/comments"
        if (found := _ours(self._calls, all_of_request, marker)) is not None:
            one = f"/repos/{_path(repository)}/issues/comments/{int(found['id'])}"
            self._calls.ask("PATCH", one, {"body": text})
        else:
            self._calls.ask("POST", all_of_request, {"body": text})
        return True


_OF_GITLAB = {CommitState.FAILURE: "failed", CommitState.ERROR: "canceled"}


class _GitLab:
    """Its commit comments cannot be edited, a discussion's notes can: the comment is a discussion of one note."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def status(self, repository: str, sha: str, status: CommitStatus) -> None:
        told = _body(status) | {"state": _OF_GITLAB.get(status.state, str(status.state))}
        try:
            self._calls.ask("POST", f"/projects/{quote(repository, safe='')}/statuses/{sha}", told)
        except Permanent as error:
            # https://gitlab.com/gitlab-org/gitlab-foss/-/issues/25807: what it is already, it cannot become.
            if "Cannot transition status" not in error.detail or not self._is(repository, sha, told):
                raise

    def _is(self, repository: str, sha: str, told: Mapping[str, str]) -> bool:
        path = f"/projects/{quote(repository, safe='')}/repository/commits/{sha}/statuses"
        found = self._calls.listed(path, name=told["context"], per_page=PAGE)
        return any(one.get("name") == told["context"] and one.get("status") == told["state"] for one in found)

    def comment(self, repository: str, sha: str, marker: str, text: str) -> bool:
        path = f"/projects/{quote(repository, safe='')}/repository/commits/{sha}/discussions"
        if (place := self._place(path, marker)) is not None:
            self._calls.ask("PUT", f"{path}/{place}", {"body": text})
        else:
            self._calls.ask("POST", path, {"body": text})
        return True

    def _place(self, path: str, marker: str) -> str | None:
        for page in range(1, PAGES + 1):
            found = self._calls.listed(path, per_page=PAGE, page=page)
            for thread in found:
                for note in thread.get("notes") or ():
                    if str(note.get("body") or "").startswith(marker):
                        return f"{quote(str(thread['id']), safe='')}/notes/{int(note['id'])}"
            if len(found) < PAGE:
                return None
        return None


_KINDS: Mapping[str, type[_GitHub] | type[_GitLab] | type[_Gitea]] = {
    "github": _GitHub,
    "gitlab": _GitLab,
    "gitea": _Gitea,
}
