"""GitLab: push and tag push webhooks.

https://docs.gitlab.com/user/project/integrations/webhook_events/. GitLab never retries, disables a hook that fails four
times, and sends nothing at all for a push of more than three refs. Every other hook is known by name and ignored.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from triggers import gitref
from triggers.answers import Answers
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of
from triggers.payload import json_object, mapping, sequence, text, texts, token, whole
from triggers.reason import Reason
from triggers.signature import SIGNING_PREFIX, check_standard_webhook, check_token
from triggers.source import STRICT, Auth, SourceType, ignored, quarantined

PUSHES = frozenset({"Push Hook", "Tag Push Hook"})
#: Every hook that GitLab documents and that starts nothing here.
IGNORED = frozenset(
    f"{name} Hook"
    for name in (
        "Confidential Issue",
        "Confidential Note",
        "Deployment",
        "Emoji",
        "Feature Flag",
        "Issue",
        "Job",
        "Member",
        "Merge Request",
        "Milestone",
        "Note",
        "Pipeline",
        "Project",
        "Release",
        "Resource Access Token",
        "Resource Deploy Token",
        "Subgroup",
        "System",
        "Vulnerability",
        "Wiki Page",
        "Work Item",
    )
)


class Config(BaseModel):
    """`type: gitlab`."""

    model_config = STRICT

    repositories: gitref.Repositories
    base_url: gitref.BaseUrl = "https://gitlab.com"  #: where `repositories` without a `url` are cloned from
    answers: Answers | None = None  #: none: nobody is told what came of a push
    auth: Auth = None


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """A secret `whsec_…` is a signing token and signs; any other is sent as it is, in X-Gitlab-Token."""
    if config.auth == "none":
        return
    if "webhook-signature" in delivery.headers and (signing := [one for one in secrets if _signs(one)]):
        check_standard_webhook(delivery, signing)
    else:
        check_token(delivery, "x-gitlab-token", [one for one in secrets if not _signs(one)])


def _signs(secret: bytes) -> bool:
    return secret.startswith(SIGNING_PREFIX)


def read(config: Config, delivery: Delivery) -> Reading:
    """A push is one event: GitLab sends one delivery for each ref."""
    name = delivery.headers.get("x-gitlab-event", "")
    key = key_of("gitlab", _delivery_id(delivery))
    if name in PUSHES:
        event = _push(config, delivery, key)
    elif name in IGNORED:
        event = ignored("git.other", name, delivery.received_at, Reason.KNOWN_AND_IGNORED, key)
    else:
        detail = "X-Gitlab-Event names no event that this source knows"
        event = quarantined("git.other", delivery.source, delivery.received_at, detail, key)
    return Reading(transport_key=key, events=(event,))


def _delivery_id(delivery: Delivery) -> str:
    """`webhook-id` equals Idempotency-Key and is signed. X-Gitlab-Webhook-UUID is the hook's, not the delivery's."""
    for name in ("webhook-id", "idempotency-key", "x-gitlab-event-uuid"):
        if found := delivery.headers.get(name, ""):
            return found
    return hashlib.sha256(delivery.body).hexdigest()


def _push(config: Config, delivery: Delivery, key: str) -> Event:
    payload = json_object(delivery.body)
    ref = gitref.ref_of(payload, "ref")
    name = token(mapping(payload, "project"), "path_with_namespace")
    found = gitref.configured(config.repositories, name, config.base_url)
    if found is None:
        return ignored("git.push", f"{name}@{ref}", delivery.received_at, Reason.NOT_FOR_US, key)
    commits = sequence(payload, "commits")
    head = _newest(commits, payload.get("checkout_sha"))
    update = gitref.Update(
        repository=found[0],
        clone_url=found[1],
        ref=ref,
        old=gitref.sha_of(payload, "before"),
        new=gitref.sha_of(payload, "after"),
        sha=gitref.sha_or_none(payload.get("checkout_sha")),  # of an annotated tag, `after` is the tag object
        paths=[] if ref.startswith("refs/tags/") else [path for commit in commits for path in _paths(commit)],
        paths_complete=whole(payload, "total_commits_count") <= len(commits),
        message=text(payload, "message") or text(head, "message"),
        author=text(mapping(head, "author"), "name") or text(payload, "user_name"),
    )
    return gitref.event_of(update, delivery.received_at)  # a push carries no time of its own


def _newest(commits: list[Any], sha: object) -> dict[str, Any]:
    """The commit that the ref points to; `commits` is oldest first and may lack it."""
    found = [commit for commit in commits if isinstance(commit, dict)]
    return next((commit for commit in found if commit.get("id") == sha), found[-1] if found else {})


def _paths(commit: Any) -> list[str]:
    if not isinstance(commit, dict):
        raise NotUnderstood("a commit is not an object")
    return [path for change in ("added", "modified", "removed") for path in texts(commit, change)]


TYPE = SourceType(
    name="gitlab",
    config=Config,
    verify=verify,
    read=read,
    types=gitref.TYPES,
    body_limit=gitref.BODY_LIMIT,
)
