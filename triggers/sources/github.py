"""GitHub: `push` webhooks, as JSON or as a form.

https://docs.github.com/en/webhooks/webhook-events-and-payloads. GitHub never retries. Every other event that a hook is
subscribed to is known by name and ignored. No call to GitHub is made.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from pydantic import BaseModel

from triggers import gitref
from triggers.answers import Answers
from triggers.errors import NotUnderstood
from triggers.event import Delivery, Event, Reading, key_of
from triggers.payload import flag, json_object, mapping, sequence, text, texts, token
from triggers.reason import Reason
from triggers.signature import check_hmac
from triggers.source import JSON, STRICT, Auth, SourceType, ignored, quarantined

FORM = "application/x-www-form-urlencoded"
_MOST_COMMITS = 2048  #: GitHub leaves the others out of a push

#: Every event that GitHub documents and that starts nothing here.
IGNORED = frozenset(
    """
    branch_protection_configuration branch_protection_rule check_run check_suite code_scanning_alert
    commit_comment create custom_property custom_property_values delete dependabot_alert deploy_key deployment
    deployment_protection_rule deployment_review deployment_status discussion discussion_comment fork
    github_app_authorization gollum installation installation_repositories installation_target issue_comment
    issue_dependencies issues label marketplace_purchase member membership merge_group meta milestone
    org_block organization package page_build personal_access_token_request ping project project_card
    project_column projects_v2 projects_v2_item projects_v2_status_update public pull_request
    pull_request_review pull_request_review_comment pull_request_review_thread registry_package release
    repository repository_advisory repository_dispatch repository_import repository_ruleset
    repository_vulnerability_alert secret_scanning_alert secret_scanning_alert_location secret_scanning_scan
    security_advisory security_and_analysis sponsorship star status sub_issues team team_add watch
    workflow_dispatch workflow_job workflow_run
    """.split()  # noqa: SIM905  # seventy quoted words are not read by anyone
)


class Config(BaseModel):
    """`type: github`."""

    model_config = STRICT

    repositories: gitref.Repositories
    base_url: gitref.BaseUrl = "https://github.com"  #: where `repositories` without a `url` are cloned from
    answers: Answers | None = None  #: none: nobody is told what came of a push
    auth: Auth = None


def verify(config: Config, delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """The SHA-256 signature only; the older `X-Hub-Signature` is SHA-1."""
    if config.auth != "none":
        check_hmac(delivery, "x-hub-signature-256", secrets)


def read(config: Config, delivery: Delivery) -> Reading:
    """A push is one event: GitHub sends one delivery for each ref."""
    name = delivery.headers.get("x-github-event", "")
    # X-GitHub-Delivery is per event: the same for a redelivery, and for two hooks on one repository.
    delivery_id = delivery.headers.get("x-github-delivery", "") or hashlib.sha256(delivery.body).hexdigest()
    key = key_of("github", delivery_id)
    if name == "push":
        event = _push(config, delivery, key)
    elif name in IGNORED:
        event = ignored("git.other", name, delivery.received_at, Reason.KNOWN_AND_IGNORED, key)
    else:
        detail = "X-GitHub-Event names no event that this source knows"
        event = quarantined("git.other", delivery.source, delivery.received_at, detail, key)
    return Reading(transport_key=key, events=(event,))


def _push(config: Config, delivery: Delivery, key: str) -> Event:
    payload = _payload(delivery)
    ref = gitref.ref_of(payload, "ref")
    name = token(mapping(payload, "repository"), "full_name")
    found = gitref.configured(config.repositories, name, config.base_url)
    if found is None:
        return ignored("git.push", f"{name}@{ref}", delivery.received_at, Reason.NOT_FOR_US, key)
    commits = sequence(payload, "commits")
    head = mapping(payload, "head_commit")
    update = gitref.Update(
        repository=found[0],
        clone_url=found[1],
        ref=ref,
        old=gitref.sha_of(payload, "before"),
        new=gitref.sha_of(payload, "after"),
        sha=gitref.sha_or_none(head.get("id")),
        paths=[path for commit in commits for path in _paths(commit)],
        paths_complete=len(commits) < _MOST_COMMITS,
        message=text(head, "message"),
        author=text(mapping(head, "author"), "name"),
        forced=flag(payload, "forced"),
    )
    return gitref.event_of(update, _pushed_at(payload, delivery))


def _payload(delivery: Delivery) -> dict[str, Any]:
    content_type = delivery.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        return json_object(delivery.body)
    try:
        form = parse_qs(delivery.body.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=10)
    except ValueError:
        raise NotUnderstood("the body is not a form") from None
    if len(form.get("payload", ())) != 1:
        raise NotUnderstood("the form has no field payload")
    return json_object(form["payload"][0].encode())


def _paths(commit: Any) -> list[str]:
    if not isinstance(commit, dict):
        raise NotUnderstood("a commit is not an object")
    return [path for change in ("added", "modified", "removed") for path in texts(commit, change)]


def _pushed_at(payload: dict[str, Any], delivery: Delivery) -> datetime:
    """When it was pushed; a commit's own time may be weeks older, or anything that its author liked."""
    seconds = mapping(payload, "repository").get("pushed_at")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 2**36:
        return datetime.fromtimestamp(seconds, UTC)
    return delivery.received_at


TYPE = SourceType(
    name="github",
    config=Config,
    verify=verify,
    read=read,
    types=gitref.TYPES,
    body_limit=gitref.BODY_LIMIT,
    content_types=frozenset({JSON, FORM}),
)
