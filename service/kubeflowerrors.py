"""What a KFP server's refusals and a broken connection mean: Temporary or Permanent, and whether anything happened.

Called by `service.kubeflowapi`. Measured on KFP 2.17: a 500 is often bad input, and a 500 on a POST does not say that
nothing runs. https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from urllib3 import exceptions as broken

from service.errors import Permanent, ServiceError, Temporary

_SAID_AT_MOST = 300  #: characters of a server's message
_PERSON = 45.0  #: seconds until it is worth asking again where a person must mend something
_HIGHEST_DELAY = 600.0

#: In a 500's message: the same call will fail again. After the last three, the run that KFP cannot show may run.
_BAD_INPUT = (
    "Run name cannot be empty",
    "ResourceNotFoundError: ",
    "belongs to pipeline",
    "Request entity too large",
    "failed to resolve {{",
    "unknown template format",
    "Data too long",
    "Incorrect string value",
    "Duplicate entry",
)
_RIGHT = re.compile(r"Namespace:([^,]*),Verb:([^,]*),Group:([^,]*),.*?Resource:([^,]*),")


class Refusal(Permanent):
    """The server said no, and why."""

    def __init__(self, detail: str, status: int, said: str = "") -> None:
        """`said`: the server's whole message, for its cause stands at its end."""
        super().__init__(detail)
        self.status = status
        self.said = said or detail


class Denied(Temporary):
    """401 or 403: a person mends the credentials or the rights, and until then no run is lost."""


class Page(Temporary):
    """Something answered that is no KFP API: a login page, another service, a gateway that knows no such path."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back of a call."""

    status: int
    data: bytes = field(repr=False)  #: UTF-8, whatever was sent
    headers: Mapping[str, str] = field(repr=False)  #: names in lower case, without Set-Cookie
    reason: str = ""

    def getheader(self, name: str) -> str | None:
        """For the client, which asks it of each answer."""
        return self.headers.get(name.lower())

    @property
    def is_kfps(self) -> bool:
        """Whether it says what is wrong as KFP does, and not as a gateway before it."""
        try:
            found = json.loads(self.data)
        except ValueError:
            return False
        return isinstance(found, dict) and bool({"message", "error_message", "error"} & set(found))

    @property
    def is_page(self) -> bool:
        """Whether it is HTML, and so nothing that KFP said."""
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or self.data.lstrip()[:1] == b"<"


def refused(answer: Answer, posted: bool) -> ServiceError:
    """What an answer outside 200 to 299 means. `posted`: it was to change something."""
    status, said = answer.status, _said(answer)
    told = f"{status}: {said[:_SAID_AT_MOST]}"
    if status in {401, 403}:
        return Denied(_denied(status, said), delay=_PERSON, nothing_happened=True)
    if status == 429:
        return Temporary(told, delay=_delay(answer), nothing_happened=True)
    if status == 413:
        return Refusal(told, status, said)
    if status < 500 and (status < 400 or answer.is_page):
        return Page(_page(answer), delay=_PERSON, nothing_happened=True)
    if status == 404 and (said == "Not Found" or not answer.is_kfps):  # a thing that is not there is always named
        told = "404: what answers has no such API; is the endpoint right, and KFP 2.0 or later?"
        return Page(told, delay=_PERSON, nothing_happened=True)
    if status in {408, 425} or (status >= 500 and not any(mark in said for mark in _BAD_INPUT)):
        return Temporary(told, delay=_delay(answer), nothing_happened=not posted)
    return Refusal(told, status, said)


def no_json(answer: Answer, posted: bool) -> ServiceError:
    """What an answer within 200 to 299 means that is no JSON object."""
    if answer.is_page:
        return Page(_page(answer), delay=_PERSON, nothing_happened=True)
    return Temporary("the answer is no JSON: is it cut off?", nothing_happened=not posted)


def cut_off(error: broken.HTTPError, posted: bool, timeout: float, ca_file: object) -> Temporary:
    """What a connection that failed means."""
    if isinstance(error, broken.SSLError):
        advice = f"is {ca_file}, the ca_file, that of its authority?" if ca_file else "set ca_file to its authority's"
        return Temporary(f"TLS fails: {_line(str(error))[:_SAID_AT_MOST]}; {advice}", **_MENDED)
    if isinstance(error, broken.NameResolutionError):
        return Temporary(f"no address is known for the host {error.conn.host}", **_MENDED)
    if isinstance(error, broken.NewConnectionError):
        return Temporary(f"cannot connect: {_line(str(error).rpartition(': ')[2])}", nothing_happened=True)
    if isinstance(error, broken.ConnectTimeoutError):
        return Temporary("the server does not take a connection", nothing_happened=True)
    if isinstance(error, broken.ReadTimeoutError):
        return Temporary(f"no answer within {timeout:g} s", nothing_happened=not posted)
    if isinstance(error, broken.LocationValueError):
        return Temporary(f"the endpoint cannot be used: {_line(str(error))[:_SAID_AT_MOST]}", **_MENDED)
    return Temporary(f"the connection broke: {_line(str(error))[:_SAID_AT_MOST]}", nothing_happened=not posted)


_MENDED: dict[str, Any] = {"delay": _PERSON, "nothing_happened": True}


def _said(answer: Answer) -> str:
    """The server's words in one line: of the API, of an upload, or of whatever stands before it."""
    try:
        body = json.loads(answer.data)
    except ValueError:
        return _line(answer.data.decode()) or answer.reason
    if not isinstance(body, dict):
        return answer.reason
    return _line(str(body.get("message") or body.get("error_message") or body.get("error_details") or answer.reason))


def _line(text: str) -> str:
    return " ".join(text.split())


def _denied(status: int, said: str) -> str:
    brief = said[:_SAID_AT_MOST]
    if status == 401:
        return f"401, it does not know who we are: give a valid token, service account or cookies ({brief})"
    if found := _RIGHT.search(said):
        namespace, verb, group, kind = found.groups()
        return f"403, not allowed: grant the verb {verb} on {kind}.{group} in namespace {namespace}"
    return f"403, not allowed: grant the right by RBAC, or give credentials of somebody who has it ({brief})"


def _page(answer: Answer) -> str:
    where = answer.headers.get("location", "").partition("?")[0]
    if where:
        return f"a login page answered: {answer.status}, and leads to {where[:100]}; give a token or cookies"
    return f"a login page answered: {answer.status}, with HTML; is the endpoint right, and a token or cookies given?"


def _delay(answer: Answer) -> float:
    """Retry-After in seconds; as a date it is not worth the reading."""
    after = answer.headers.get("retry-after", "").strip()
    return min(float(after), _HIGHEST_DELAY) if after.isdigit() else 5.0
