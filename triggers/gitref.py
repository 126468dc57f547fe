"""What all Git senders tell in their own words: a ref moved. Their updates become events here.

Called by `triggers.sources.github`, `.gitlab` and `.git`. A ref is a stream: its events are told apart by the place
that it moved to, so that A→B→A→B is three moves and a redelivery none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from triggers.errors import NotUnderstood
from triggers.event import Event, Verdict
from triggers.payload import token
from triggers.reason import Reason
from triggers.schema import EventSchema
from triggers.secretref import SecretReference, reference
from triggers.source import MIB, STRICT, schema

BODY_LIMIT = 25 * MIB  #: GitHub's and GitLab's own cap

_BRANCH, _TAG = "refs/heads/", "refs/tags/"
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+/ -]{0,254}")
_URL = re.compile(r"(?:https?|ssh|git|file)://[^\s\x00-\x1f]+|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^\s\x00-\x1f]+")
_PASSWORD = re.compile(r"https?://[^/]*@|://[^/@]*:[^/@]*@")  # over HTTP a name alone is mostly a token
_PATTERN = re.compile(r"(?!.*(?:\.\.|//|@\{))[A-Za-z0-9_][A-Za-z0-9_.+/@#-]{0,254}\*?|\*")
_ACCOUNT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def _safe_url(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("must be a clone URL: https://…, ssh://…, git@host:path or file://…")
    if _PASSWORD.search(url):
        raise ValueError("holds a user or a password: pipelines get their credentials elsewhere, an URL is no secret")
    return url


def _pattern(name: str) -> str:
    if not _PATTERN.fullmatch(name):
        raise ValueError("must be a branch's name, or the beginning of one with * at its end: main, release/*")
    return name


def _account(name: str) -> str:
    if not _ACCOUNT.fullmatch(name):
        raise ValueError("must be the name of a Kubernetes service account, such as income-trainer")
    return name


class AllowedPackages(BaseModel):
    """Compiled pipelines may be taken from a repository's commits, and this is what holds for them.

    Whoever can push to one of the branches runs code with that service account: list protected branches only.
    """

    model_config = STRICT

    branches: Annotated[list[Annotated[str, AfterValidator(_pattern)]], Field(min_length=1)]
    service_account: Annotated[str, AfterValidator(_account)]  #: of every run of such a package
    token: Annotated[SecretReference, BeforeValidator(reference)] | None = None  #: to fetch with, over HTTP

    def lists(self, branch: str) -> bool:
        """Whether a branch is one of them."""
        return any(branch.startswith(one[:-1]) if one.endswith("*") else branch == one for one in self.branches)


class Repository(BaseModel):
    """A repository that a source listens to."""

    model_config = STRICT

    url: Annotated[str, AfterValidator(_safe_url)] | None = None  #: what pipelines clone
    packages: AllowedPackages | None = None  #: none: no run takes its pipeline from here

    @model_validator(mode="after")
    def _token_goes_somewhere(self) -> "Repository":
        over_http = self.url is None or self.url.startswith(("https://", "http://"))
        if self.packages and self.packages.token and not over_http:
            raise ValueError("packages.token: is only for https:// and http://; leave it out")
        return self


def _named(found: Any) -> Any:
    """A list of names is a mapping without settings."""
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        if len(set(found)) != len(found):
            raise ValueError("a repository stands here twice")
        found = {name: {} for name in found}
    if not isinstance(found, dict):
        raise ValueError("must be a list of names such as acme/income-model, or a mapping of name to {url: …}")
    if bad := [name for name in found if not _NAME.fullmatch(name)]:
        raise ValueError(f"{len(bad)} of the names are not like acme/income-model")
    return {name: settings if settings is not None else {} for name, settings in found.items()}


Repositories = Annotated[dict[str, Repository], BeforeValidator(_named), Field(min_length=1)]
BaseUrl = Annotated[str, AfterValidator(_safe_url)]


@dataclass(frozen=True, kw_only=True)
class Update:
    """One ref of a configured repository moved."""

    repository: str
    clone_url: str
    ref: str
    old: str
    new: str
    sha: str = ""  #: the commit, where `new` is a tag object; "" when they are the same
    paths: Sequence[str] = ()
    paths_complete: bool = True
    message: str = ""
    author: str = ""
    forced: bool = False


def configured(repositories: Mapping[str, Repository], name: str, base_url: str) -> tuple[str, str] | None:
    """The name as it stands in the configuration, and the URL to clone; hosts fold the case of names, and so do we."""
    for known, settings in repositories.items():
        if known.casefold() == name.casefold():
            return known, settings.url or (f"{base_url.rstrip('/')}/{known}.git" if base_url else "")
    return None


def sha_of(of: Mapping[str, Any], name: str) -> str:
    """A full object name."""
    found = of.get(name)
    if not isinstance(found, str) or not _SHA.fullmatch(found):
        raise NotUnderstood(f"{name} is not a full sha")
    return found


def sha_or_none(found: object) -> str:
    """A full object name if it is one, else ""."""
    return found if isinstance(found, str) and _SHA.fullmatch(found) else ""


def ref_of(of: Mapping[str, Any], name: str) -> str:
    """A ref's full name."""
    found = token(of, name)
    if not found.startswith("refs/"):
        raise NotUnderstood(f"{name} is not a full ref name")
    return found


def no_object(sha: str) -> bool:
    """Git's word for "there is none": all zeros."""
    return not sha.strip("0")


def event_of(update: Update, time: datetime) -> Event:
    """`git.push` or `git.tag`; a deletion moves the stream on and starts nothing, like a ref that is neither."""
    event_type = "git.other"
    if no_object(update.new):
        event_type = "git.deleted"
    elif update.ref.startswith(_BRANCH):
        event_type = "git.push"
    elif update.ref.startswith(_TAG):
        event_type = "git.tag"
    started = event_type in TYPES
    return Event(
        type=event_type,
        subject=f"{update.repository}@{update.ref}",
        time=time,
        data=_data(update) if started else {},
        stream=f"{update.repository}@{update.ref}",
        position=update.new,
        verdict=Verdict.ACCEPTED if started else Verdict.IGNORED,
        reason=None if started else Reason.KNOWN_AND_IGNORED,
    )


def _data(update: Update) -> dict[str, Any]:
    return {
        "repository": update.repository,
        "clone_url": update.clone_url,
        "ref": update.ref,
        "branch": update.ref.removeprefix(_BRANCH) if update.ref.startswith(_BRANCH) else "",
        "tag": update.ref.removeprefix(_TAG) if update.ref.startswith(_TAG) else "",
        "sha": update.sha or update.new,
        "before": "" if no_object(update.old) else update.old,
        "paths": sorted(set(update.paths)),
        "paths_complete": update.paths_complete,
        "message": update.message,
        "author": update.author,
        "forced": update.forced,
    }


_FIELDS = {
    "repository": ("string", "its name as the source's configuration has it"),
    "clone_url": ("string", "its URL from the source's configuration, never from the payload; empty if that has none"),
    "ref": ("string", "the full ref, e.g. refs/heads/main"),
    "branch": ("string", "the branch; empty for a tag"),
    "tag": ("string", "the tag; empty for a branch"),
    "sha": ("string", "the commit that the ref now points to, in full"),
    "before": ("string", "what the ref pointed to before; empty if it is new"),
    "paths": ("list", "files that the pushed commits added, changed or removed"),
    "paths_complete": ("bool", "false when the sender left some of the commits or paths out"),
    "message": ("string", "the message of the newest commit, or of the tag"),
    "author": ("string", "the name of the newest commit's author"),
    "forced": ("bool", "whether history was rewritten; GitLab does not say, so it is false there"),
}
_PUSH = {
    "repository": "acme/income-model",
    "clone_url": "https://git.example/acme/income-model.git",
    "ref": "refs/heads/main",
    "branch": "main",
    "tag": "",
    "sha": "7f3c1d0a9b8e5f6423c1d0a9b8e5f6423c1d0a9b",
    "before": "0a9b8e5f6423c1d0a9b8e5f6423c1d0a9b7f3c1d",
    "paths": ["features/age.py", "src/model.py"],
    "paths_complete": True,
    "message": "Bin the age more finely\n",
    "author": "Ada Lovelace",
    "forced": False,
}
_TAGGED = _PUSH | {"ref": "refs/tags/v1.4", "branch": "", "tag": "v1.4", "before": "", "paths": []}
TYPES: Mapping[str, EventSchema] = {"git.push": schema(_FIELDS, _PUSH), "git.tag": schema(_FIELDS, _TAGGED)}
