"""GitHub, GitLab and our own hook: a ref moved."""

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from triggers.errors import NotAuthentic, NotUnderstood
from triggers.event import Delivery, Reading, Verdict
from triggers.reason import Reason
from triggers.sources import github, gitlab

Captured = Callable[[str, str], Delivery]
Deliver = Callable[..., Delivery]
Read = Callable[[Delivery], Reading]

A, B, ZERO = "a" * 40, "b" * 40, "0" * 40


def _changed(delivery: Delivery, **changes: Any) -> Delivery:
    """The same request with another body."""
    body = json.dumps(json.loads(delivery.body) | changes).encode()
    return Delivery(source=delivery.source, headers=delivery.headers, body=body, received_at=delivery.received_at)


def _headed(delivery: Delivery, **headers: str) -> Delivery:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    found = {name: text for name, text in (dict(delivery.headers) | named).items() if text}
    return Delivery(source=delivery.source, headers=found, body=delivery.body, received_at=delivery.received_at)


def _hook(*updates: Any, **changes: Any) -> str:
    body = {
        "version": 1,
        "delivery": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "repository": "acme/income-model",
        "sent_at": "2026-11-21T07:00:00Z",
        "updates": updates or [{"old": A, "new": B, "ref": "refs/heads/main"}],
    }
    return json.dumps(body | changes)


PUSHES = [("github", "push-two-commits"), ("gitlab", "push")]


@pytest.mark.parametrize(("source", "case"), PUSHES)
def test_a_repository_that_is_not_listed_is_not_for_us(source: str, case: str, captured: Captured, read: Read) -> None:
    [event] = read(captured(source, "push-elsewhere")).events
    assert (event.verdict, event.reason, event.stream) == (Verdict.IGNORED, Reason.NOT_FOR_US, "")


@pytest.mark.parametrize(("source", "case"), [("github", "push-tag-deleted"), ("gitlab", "branch-deleted")])
def test_a_deleted_ref_starts_nothing_and_moves_its_stream_on(
    source: str, case: str, captured: Captured, read: Read
) -> None:
    [event] = read(captured(source, case)).events
    assert (event.type, event.verdict, event.position) == ("git.deleted", Verdict.IGNORED, ZERO)
    assert event.stream


@pytest.mark.parametrize(("source", "case"), PUSHES)
def test_a_ref_that_is_neither_branch_nor_tag_starts_nothing(
    source: str, case: str, captured: Captured, read: Read
) -> None:
    [event] = read(_changed(captured(source, case), ref="refs/notes/commits")).events
    assert (event.type, event.verdict) == ("git.other", Verdict.IGNORED)


@pytest.mark.parametrize(("source", "case"), PUSHES)
def test_a_name_is_known_whatever_its_case(source: str, case: str, captured: Captured, read: Read) -> None:
    delivery = captured(source, case)
    shouted = delivery.body.replace(b"Hello-World", b"HELLO-WORLD").replace(b"mike\\/diaspora", b"Mike\\/Diaspora")
    assert shouted != delivery.body
    again = Delivery(source=source, headers=delivery.headers, body=shouted, received_at=delivery.received_at)
    assert read(again).events[0].stream == read(delivery).events[0].stream


def test_the_url_to_clone_is_never_the_payloads(captured: Captured, read: Read) -> None:
    delivery = captured("github", "push-two-commits")
    evil = delivery.body.replace(b"https://github.com/Codertocat/Hello-World.git", b"https://evil.example/x.git")
    assert evil != delivery.body
    again = Delivery(source="github", headers=delivery.headers, body=evil, received_at=delivery.received_at)
    assert read(again).events[0].data["clone_url"] == "https://github.com/Codertocat/Hello-World.git"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"repositories": ["Codertocat/Hello-World"]}, "https://github.com/Codertocat/Hello-World.git"),
        (
            {"repositories": ["Codertocat/Hello-World"], "base_url": "https://ghe.example/"},
            "https://ghe.example/Codertocat/Hello-World.git",
        ),
        (
            {"repositories": {"Codertocat/Hello-World": {"url": "git@ghe.example:x/y.git"}}},
            "git@ghe.example:x/y.git",
        ),
    ],
)
def test_the_url_to_clone_is_the_configurations(settings: dict[str, Any], url: str, captured: Captured) -> None:
    config = github.Config.model_validate(settings)
    assert github.read(config, captured("github", "push-two-commits")).events[0].data["clone_url"] == url


def test_a_form_says_the_same_as_json(captured: Captured, read: Read) -> None:
    as_json, as_form = (read(captured("github", f"push-two-commits{form}")) for form in ("", "-form"))
    assert as_json.events == as_form.events


@pytest.mark.parametrize("body", ["", "payload", "payload=%ff", "payload={}&payload={}", "other={}", "payload=[1]"])
def test_a_form_without_one_payload_is_not_understood(body: str, captured: Captured, read: Read) -> None:
    headers = captured("github", "push-two-commits-form").headers
    delivery = captured("github", "push-two-commits")
    with pytest.raises(NotUnderstood):
        read(Delivery(source="github", headers=headers, body=body.encode(), received_at=delivery.received_at))


def test_a_redelivery_is_known_by_its_id_and_another_is_not(captured: Captured, read: Read) -> None:
    delivery = captured("github", "push-two-commits")
    assert read(_headed(delivery)).transport_key == read(delivery).transport_key
    assert read(_headed(delivery, x_github_delivery="other")).transport_key != read(delivery).transport_key
    nameless = _headed(delivery, x_github_delivery="")
    assert read(nameless).transport_key == read(nameless).transport_key


def test_gitlabs_delivery_is_known_by_its_idempotency_key(captured: Captured, read: Read) -> None:
    delivery = captured("gitlab", "push")
    again = _headed(delivery, x_gitlab_event_uuid="another", x_gitlab_webhook_uuid="another")
    assert read(again).transport_key == read(delivery).transport_key
    older = _headed(delivery, idempotency_key="")
    assert read(older).transport_key not in {read(_headed(older, x_gitlab_event_uuid="")).transport_key, ""}


@pytest.mark.parametrize("event", sorted(github.IGNORED))
def test_every_other_github_event_is_ignored_by_name(event: str, captured: Captured, read: Read) -> None:
    [found] = read(_headed(captured("github", "ping"), x_github_event=event)).events
    assert (found.verdict, found.reason) == (Verdict.IGNORED, Reason.KNOWN_AND_IGNORED)


@pytest.mark.parametrize("hook", sorted(gitlab.IGNORED))
def test_every_other_gitlab_hook_is_ignored_by_name(hook: str, captured: Captured, read: Read) -> None:
    [found] = read(_headed(captured("gitlab", "merge-request"), x_gitlab_event=hook)).events
    assert (found.verdict, found.reason) == (Verdict.IGNORED, Reason.KNOWN_AND_IGNORED)


@pytest.mark.parametrize("source", ["github", "gitlab"])
def test_an_unheard_of_event_is_quarantined_without_its_name(source: str, captured: Captured, read: Read) -> None:
    [found] = read(captured(source, "unheard-of")).events
    assert found.verdict is Verdict.QUARANTINED
    assert "uantum" not in found.detail + found.subject


@pytest.mark.parametrize(("source", "case"), PUSHES)
@pytest.mark.parametrize(
    "changes",
    [
        {"ref": None},
        {"ref": "main"},
        {"ref": "refs/heads/\ud800"},
        {"ref": "refs/heads/a\nb"},
        {"after": "HEAD"},
        {"after": None},
        {"before": A[:-1]},
        {"repository": None, "project": None},
        {"repository": [], "project": []},
        {"commits": {}},
        {"commits": [7]},
        {"commits": [{"added": "x"}]},
        {"commits": [{"added": [7]}]},
    ],
    ids=repr,
)
def test_a_push_of_another_shape_is_not_understood(
    source: str, case: str, changes: dict[str, Any], captured: Captured, read: Read
) -> None:
    with pytest.raises(NotUnderstood):
        read(_changed(captured(source, case), **changes))


def test_commits_that_gitlab_left_out_are_admitted(captured: Captured, read: Read) -> None:
    assert not read(captured("gitlab", "push")).events[0].data["paths_complete"]
    assert read(captured("gitlab", "push-signed")).events[0].data["paths_complete"]


@pytest.mark.parametrize("which", [0, 1])
def test_gitlabs_token_does_not_pass_for_its_signing_token(
    which: int, captured: Captured, verify: Callable[..., None]
) -> None:
    case = ("push", "push-signed")[which]
    secrets = [b"gitlab-token-0123456789", b"whsec_a2ZwLXRyaWdnZXJzLXNpZ25pbmctdG9rZW4tMzItYnk="]
    verify(captured("gitlab", case), [secrets[which]])
    with pytest.raises(NotAuthentic):
        verify(captured("gitlab", case), [secrets[1 - which]])


def test_a_signing_token_sent_as_it_is_proves_nothing(captured: Captured, verify: Callable[..., None]) -> None:
    secret = "whsec_a2ZwLXRyaWdnZXJzLXNpZ25pbmctdG9rZW4tMzItYnk="
    with pytest.raises(NotAuthentic):
        verify(_headed(captured("gitlab", "push"), x_gitlab_token=secret), [secret.encode()])


def test_an_old_signed_delivery_is_refused(captured: Captured, verify: Callable[..., None]) -> None:
    delivery = captured("gitlab", "push-signed")
    later = delivery.received_at + timedelta(seconds=301)
    with pytest.raises(NotAuthentic):
        verify(Delivery(source="gitlab", headers=delivery.headers, body=delivery.body, received_at=later))


def test_githubs_signature_is_over_the_form_as_it_was_sent(captured: Captured, verify: Callable[..., None]) -> None:
    delivery = captured("github", "push-two-commits-form")
    signature = hmac.new(b"It's a Secret to Everybody", delivery.body, hashlib.sha256).hexdigest()
    assert delivery.headers["x-hub-signature-256"] == f"sha256={signature}"
    other = urlencode({"payload": "{}"}).encode()
    with pytest.raises(NotAuthentic):
        verify(Delivery(source="github", headers=delivery.headers, body=other, received_at=delivery.received_at))


def test_each_ref_of_one_push_is_an_event(deliver: Deliver, read: Read) -> None:
    updates = [
        {"old": A, "new": B, "ref": "refs/heads/main", "paths": ["b", "a", "b"], "message": "m", "author": "Ada"},
        {"old": ZERO, "new": "c" * 64, "ref": "refs/tags/v1", "commit": B},
        {"old": A, "new": ZERO, "ref": "refs/heads/old"},
        {"old": A, "new": "HEAD", "ref": "refs/heads/bad"},
        7,
    ]
    events = read(deliver("git", _hook(*updates))).events
    assert [(event.type, event.verdict.value) for event in events] == [
        ("git.push", "accepted"),
        ("git.tag", "accepted"),
        ("git.deleted", "ignored"),
        ("git.other", "quarantined"),
        ("git.other", "quarantined"),
    ]
    assert events[0].data["paths"] == ["a", "b"]
    assert (events[1].data["sha"], events[1].position) == (B, "c" * 64)
    assert len({event.identity for event in events[3:]}) == 2


def test_a_hooks_delivery_is_known_by_the_id_inside(deliver: Deliver, read: Read) -> None:
    described = _hook({"old": A, "new": B, "ref": "refs/heads/main", "paths": ["a"]})
    assert read(deliver("git", described)).transport_key == read(deliver("git", _hook())).transport_key
    other = _hook(delivery="another-delivery-0123")
    assert read(deliver("git", other)).transport_key != read(deliver("git", _hook())).transport_key


def test_a_hooks_repository_that_is_not_listed_is_not_for_us(deliver: Deliver, read: Read) -> None:
    [event] = read(deliver("git", _hook(repository="acme/other"))).events
    assert (event.verdict, event.reason) == (Verdict.IGNORED, Reason.NOT_FOR_US)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"version": None},
        {"delivery": "short"},
        {"delivery": 7},
        {"repository": ""},
        {"updates": []},
        {"updates": {}},
        {"sent_at": "now"},
    ],
    ids=repr,
)
def test_a_hooks_body_of_another_shape_is_not_understood(changes: dict[str, Any], deliver: Deliver, read: Read) -> None:
    with pytest.raises(NotUnderstood):
        read(deliver("git", _hook(**changes)))
