"""Calls to a KFP API server over `kfp.Client`: JSON out, `Temporary` or `Permanent` for all that goes wrong.

Used by the other `service.kubeflow*` modules. The client brings the API's paths and parameters; how its calls travel
is ours (`_Wire`): a time-out on each, nothing sent twice by itself, no redirects, no models. kfp is imported at the
first call, for that takes up to two seconds.
"""

import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from service.errors import ServiceError
from service.kubeflowerrors import Answer, cut_off, no_json, refused
from service.kubeflowsecrets import Secrets
from service.settings import BackendSettings

_CONNECT = 5.0  #: seconds
_PAGES_AT_MOST = 1000
_READS = re.compile(r"_service_(get|list)_")
_WARNING = "This client only works with Kubeflow Pipeline"

Json = dict[str, Any]


class Api:
    """One server. Usable from many threads."""

    def __init__(self, settings: BackendSettings) -> None:
        """Costs nothing: neither an import nor a connection."""
        self._settings = settings
        self._secrets = Secrets(settings)
        self._first = threading.Lock()
        self._made: Any = None
        self._made_in = 0
        self._refused: Callable[[int, str], Exception] = Exception  #: the client's own, once that is imported

    def ask(self, doing: str, what: str, *args: Any, **given: Any) -> Json:
        """One call of a generated service: `runs.run_service_get_run`. `doing` begins the text of an error."""
        service, _, name = what.partition(".")
        given = {key: value for key, value in given.items() if value not in ("", None)}

        def call(client: Any, limits: tuple[float, float]) -> Any:
            method = getattr(getattr(client, service), name)
            return method(*args, **given, _preload_content=False, _request_timeout=limits)

        return self._answered(doing, not _READS.search(name), call)

    def raw(self, doing: str, method: str, path: str, file: bytes = b"", **query: str) -> Json:
        """A call that the generated services lack, or have only for a file on disk; `file` goes as `uploadfile`."""
        fields = [("uploadfile", ("pipeline.yaml", file, "application/octet-stream"))] if file else []

        def call(client: Any, limits: tuple[float, float]) -> Any:
            return client.runs.api_client.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                post_params=fields,
                auth_settings=["Bearer"],
                _preload_content=False,
                _request_timeout=limits,
            )

        return self._answered(doing, method != "GET", call)

    def pages(self, doing: str, what: str, part: str, *args: Any, **given: Any) -> Iterator[list[Json]]:
        """The lists under `part`, page by page; a token holds only with the same sorting and filter."""
        token = ""
        for _ in range(_PAGES_AT_MOST):
            page = self.ask(doing, what, *args, page_token=token, **given)
            yield page.get(part) or []
            if not (token := page.get("next_page_token") or ""):
                return

    def _answered(self, doing: str, posted: bool, call: Callable[[Any, tuple[float, float]], Any]) -> Json:
        """A 401 had no effect: with a secret from a file, which may just have been rotated, the call is made again."""
        try:
            answer = self._once(posted, call)
            if answer.status == 401 and self._secrets.forget():
                answer = self._once(posted, call)
            return self._read(answer, posted)
        except ServiceError as error:
            error.detail = self._secrets.hidden(f"{doing}: {error.detail}")
            error.args = (error.detail,)
            raise

    def _once(self, posted: bool, call: Callable[[Any, tuple[float, float]], Any]) -> Answer:
        client = self._client()
        client.runs.api_client.cookie = self._secrets.cookie() or None
        timeout = self._settings.timeout
        try:
            answer: Answer = call(client, (min(_CONNECT, timeout), timeout))
        except urllib3.exceptions.HTTPError as error:
            raise cut_off(error, posted, timeout, self._settings.ca_file) from error
        return answer

    def _read(self, answer: Answer, posted: bool) -> Json:
        if not 200 <= answer.status < 300:
            raise refused(answer, posted) from self._refused(answer.status, answer.reason)
        try:
            found = json.loads(answer.data or b"{}")
        except ValueError as error:
            raise no_json(answer, posted) from error
        if not isinstance(found, dict):
            raise no_json(answer, posted)
        return found

    def _client(self) -> Any:
        with self._first:
            if self._made_in != os.getpid():  # after a fork the connections are the parent's
                self._made, self._refused = _connect(self._settings, self._secrets)
                self._made_in = os.getpid()
            return self._made


def _connect(settings: BackendSettings, secrets: Secrets) -> tuple[Any, Any]:
    """`kfp.Client`, and the class of its exceptions; without what it does for a notebook.

    It would read and write ~/.config/kfp/context.json (another one's cookies), take credentials and a browser login
    from KF_PIPELINES_*, ask healthz five times without a time-out, and warn that it is no client for 1.x.
    """
    import kfp  # noqa: PLC0415 - two seconds, which only those pay who have such a backend
    from kfp.client.client import kfp_server_api  # noqa: PLC0415 - the same

    class Client(kfp.Client):  # type: ignore[misc]  # kfp is shipped without types
        def _load_config(self, *_: Any) -> Any:
            config = kfp_server_api.Configuration()
            config.host = settings.endpoint
            if secrets.hook:
                config.api_key["authorization"] = ""
                config.api_key_prefix["authorization"] = "Bearer"
                config.refresh_api_key_hook = secrets.hook
            return config

        def _load_context_setting_or_default(self) -> None:
            self._context_setting = {"namespace": "given with each call"}

    # For good, and not `catch_warnings`: that changes all threads' filters for as long as it lasts.
    warnings.filterwarnings("ignore", message=_WARNING, category=FutureWarning)
    client = Client(host=settings.endpoint)
    client.runs.api_client.rest_client = _Wire(settings)
    return client, kfp_server_api.ApiException


class _Wire:
    """In the place of the client's own REST client.

    That one follows redirects, retries what urllib3 would, and fails on a bad certificate with an AttributeError.
    """

    def __init__(self, settings: BackendSettings) -> None:
        tls: dict[str, Any] = {"ca_certs": str(settings.ca_file)} if settings.ca_file else {}
        if not settings.verify_tls:
            warnings.filterwarnings("ignore", category=urllib3.exceptions.InsecureRequestWarning)  # it was asked for
            tls = {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        self._tls = tls
        self._kept = urllib3.PoolManager(num_pools=1, maxsize=8, **tls)

    def GET(  # noqa: N802 - the name that the client calls
        self, url: str, *, headers: dict[str, str], query_params: Any, _request_timeout: Any, **_: Any
    ) -> Answer:
        sent = {"headers": headers, "fields": query_params, "timeout": _request_timeout}
        try:
            return _send(self._kept, "GET", url, **sent)
        except urllib3.exceptions.ProtocolError:  # a kept connection that was closed at the other end
            return _send(self._kept, "GET", url, **sent)

    def POST(  # noqa: N802 - the same
        self,
        url: str,
        *,
        headers: dict[str, str],
        query_params: Any,
        post_params: Any,
        body: Any,
        _request_timeout: Any,
        **_: Any,
    ) -> Answer:
        """Over a connection of its own: when a kept one is just being closed, nobody can say what was read."""
        url += f"?{urlencode(query_params)}" if query_params else ""
        headers = {name: text for name, text in headers.items() if name.lower() != "content-type"}
        sent: dict[str, Any] = {"fields": post_params}
        if not post_params:
            sent = {"body": json.dumps({} if body is None else body)}
            headers["Content-Type"] = "application/json"
        with urllib3.PoolManager(num_pools=1, **self._tls) as fresh:
            return _send(fresh, "POST", url, headers=headers, timeout=_request_timeout, **sent)


def _send(pool: urllib3.PoolManager, method: str, url: str, timeout: tuple[float, float], **sent: Any) -> Answer:
    limits = urllib3.Timeout(connect=timeout[0], read=timeout[1])
    got = pool.request(method, url, timeout=limits, retries=False, redirect=False, **sent)
    headers = {name.lower(): text for name, text in got.headers.items() if name.lower() != "set-cookie"}
    return Answer(
        status=got.status,
        data=got.data.decode(errors="replace").encode(),
        headers=headers,
        reason=got.reason or "",
    )


def equals(key: str, value: str) -> Json:
    """A predicate of a filter. The database compares without case: look again at what comes."""
    return {"operation": "EQUALS", "key": key, "string_value": value}


def contains(key: str, value: str) -> Json:
    """A predicate of a filter."""
    return {"operation": "IS_SUBSTRING", "key": key, "string_value": value}


def among(key: str, values: Sequence[str]) -> Json:
    """A predicate of a filter."""
    return {"operation": "IN", "key": key, "string_values": {"values": list(values)}}


def where(*predicates: Mapping[str, Any]) -> str:
    """A filter of all of them; percent-encoded, for the server unescapes it once more than the query."""
    return quote(json.dumps({"predicates": predicates}), safe="")
