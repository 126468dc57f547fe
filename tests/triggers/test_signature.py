"""The checks that prove a delivery."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from triggers.errors import NotAuthentic
from triggers.event import Delivery
from triggers.signature import check_bearer, check_hmac, check_standard_webhook, check_token, weakness

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
GITHUB = (b"It's a Secret to Everybody", b"Hello, World!")
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
# https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/python/tests/test_webhooks.py
STANDARD = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
STANDARD_TIME = 1614265330
TOKEN, OTHER = b"token-0123456789abcdef", b"other-0123456789abcdef"


def _delivery(body: bytes = b"", at: datetime = NOW, **headers: str) -> Delivery:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Delivery(source="s", headers=named, body=body, received_at=at)


def _github(delivery: Delivery, secrets: list[bytes]) -> None:
    check_hmac(delivery, "x-hub-signature-256", secrets)


def _standard(
    *, shift: float = 0, body: bytes = STANDARD_BODY, signature: str = STANDARD_SIGNATURE, timestamp: str = ""
) -> Delivery:
    return _delivery(
        body,
        datetime.fromtimestamp(STANDARD_TIME + shift, UTC),
        webhook_id=STANDARD_ID,
        webhook_timestamp=timestamp or str(STANDARD_TIME),
        webhook_signature=signature,
    )


def test_githubs_documented_vector_is_authentic() -> None:
    _github(_delivery(GITHUB[1], x_hub_signature_256=GITHUB_SIGNATURE), [GITHUB[0]])


def test_the_standard_webhooks_documented_vector_is_authentic() -> None:
    check_standard_webhook(_standard(), [STANDARD])


@pytest.mark.parametrize(
    ("body", "signature", "secrets"),
    [
        (b"Hello, World?", GITHUB_SIGNATURE, [GITHUB[0]]),
        (GITHUB[1], GITHUB_SIGNATURE[:-1] + "6", [GITHUB[0]]),
        (GITHUB[1], GITHUB_SIGNATURE.removeprefix("sha256="), [GITHUB[0]]),
        (GITHUB[1], "sha1=" + hmac.new(GITHUB[0], GITHUB[1], hashlib.sha1).hexdigest(), [GITHUB[0]]),
        (GITHUB[1], "", [GITHUB[0]]),
        (GITHUB[1], "sha256=", [GITHUB[0]]),
        (GITHUB[1], "sha256=é\u2028", [GITHUB[0]]),
        (GITHUB[1], GITHUB_SIGNATURE, [OTHER]),
        (GITHUB[1], GITHUB_SIGNATURE, []),
        (GITHUB[1], "sha256=" + hmac.new(b"", GITHUB[1], hashlib.sha256).hexdigest(), [b""]),
        (GITHUB[1], "sha256=" + hmac.new(b"short", GITHUB[1], hashlib.sha256).hexdigest(), [b"short"]),
    ],
    ids=[
        "body",
        "bit",
        "bare",
        "sha1",
        "missing",
        "empty",
        "non-ascii",
        "other-secret",
        "no-secret",
        "empty-secret",
        "short-secret",
    ],
)
def test_anything_but_the_right_signature_is_refused(body: bytes, signature: str, secrets: list[bytes]) -> None:
    with pytest.raises(NotAuthentic):
        _github(_delivery(body, x_hub_signature_256=signature), secrets)


def test_the_same_json_written_anew_is_refused() -> None:
    signature = "sha256=" + hmac.new(TOKEN, b'{"a": 1}', hashlib.sha256).hexdigest()
    with pytest.raises(NotAuthentic):
        _github(_delivery(b'{"a":1}', x_hub_signature_256=signature), [TOKEN])


@pytest.mark.parametrize("secrets", [[OTHER, GITHUB[0]], [GITHUB[0], OTHER]], ids=["new", "old"])
def test_while_a_secret_is_rotated_both_are_good(secrets: list[bytes]) -> None:
    _github(_delivery(GITHUB[1], x_hub_signature_256=GITHUB_SIGNATURE), secrets)


@pytest.mark.parametrize(
    "header",
    ["Bearer token-0123456789abcdef", "bearer token-0123456789abcdef", "Bearer  token-0123456789abcdef"],
)
def test_a_bearer_token_is_authentic(header: str) -> None:
    check_bearer(_delivery(authorization=header), [OTHER, TOKEN])


@pytest.mark.parametrize(
    "header",
    ["token-0123456789abcdef", "Basic token-0123456789abcdef", "Bearer", "Bearer ", "", "Bearer token-0123456789abcde"],
)
def test_what_is_not_the_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(NotAuthentic):
        check_bearer(_delivery(authorization=header), [TOKEN])


def test_a_token_of_two_words_is_the_whole_header() -> None:
    check_bearer(_delivery(authorization="Basic dXNlcjpwYXNz"), [b"Basic dXNlcjpwYXNz"])
    with pytest.raises(NotAuthentic):
        check_bearer(_delivery(authorization="Bearer Basic dXNlcjpwYXNz"), [b"Basic dXNlcjpwYXNz"])


def test_a_token_in_its_own_header_is_compared_as_bytes() -> None:
    secret = "pässwörd-0123456789".encode()
    check_token(_delivery(x_gitlab_token=secret.decode("latin-1")), "x-gitlab-token", [secret])


@pytest.mark.parametrize("shift", [-300, 0, 300])
def test_a_signed_timestamp_may_be_five_minutes_away(shift: float) -> None:
    check_standard_webhook(_standard(shift=shift), [STANDARD])


@pytest.mark.parametrize(
    "delivery",
    [
        _standard(shift=301),
        _standard(shift=-301),
        _standard(body=b"{}"),
        _standard(timestamp="x"),
        _standard(timestamp=str(STANDARD_TIME + 1)),
        _standard(timestamp="²"),
        _standard(timestamp="9" * 5000),
        _standard(signature="v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        _standard(signature="v1,"),
        _standard(signature="g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        _standard(signature="v1,é"),
    ],
    ids=["old", "future", "body", "word", "timestamp", "superscript", "huge", "v1a", "empty", "bare", "non-ascii"],
)
def test_any_other_standard_webhook_is_refused(delivery: Delivery) -> None:
    with pytest.raises(NotAuthentic):
        check_standard_webhook(delivery, [STANDARD])


def test_one_of_several_signatures_is_enough() -> None:
    check_standard_webhook(_standard(signature=f"v1a,xyz v1,AAAA {STANDARD_SIGNATURE}"), [STANDARD])


@pytest.mark.parametrize(
    "secret", [b"whsec_", b"whsec_!!!", b"whsec_" + base64.b64encode(b"short"), b"plain-0123456789"]
)
def test_what_is_no_signing_token_signs_nothing(secret: bytes) -> None:
    with pytest.raises(NotAuthentic):
        check_standard_webhook(_standard(), [secret])


@pytest.mark.parametrize(
    ("secret", "says"),
    [(TOKEN, ""), (STANDARD, ""), (b"", "shorter"), (b"0123456789abcde", "shorter"), (b"whsec_" + b"!" * 20, "whsec_")],
)
def test_a_weak_secret_is_named_before_it_is_used(secret: bytes, says: str) -> None:
    assert says in weakness(secret)
    assert bool(says) == bool(weakness(secret))


@pytest.mark.parametrize(
    "check", [check_bearer, lambda delivery, secrets: check_token(delivery, "authorization", secrets)]
)
def test_a_refusal_never_repeats_what_was_sent(check: Callable[[Delivery, list[bytes]], None]) -> None:
    with pytest.raises(NotAuthentic) as refused:
        check(_delivery(authorization="Bearer canary"), [TOKEN])
    assert "canary" not in str(refused.value)
    assert TOKEN.decode() not in str(refused.value)


def test_every_secret_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def noted(given: bytes, expected: bytes) -> bool:
        compared.append(expected)
        return real(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    check_bearer(_delivery(authorization=f"Bearer {TOKEN.decode()}"), [TOKEN, OTHER])
    assert compared == [TOKEN, OTHER]
