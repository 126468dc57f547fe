"""Whether a delivery comes from who it says: the checks that the sources share.

Called by each source's `verify`, before anything is parsed, with the raw bytes and every secret that is valid now (two
while one is being rotated). Fails closed both ways: without a secret nothing is authentic. Compares bytes in constant
time. Reads no secret from anywhere: the service resolves the references of `sources.yaml`.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence

from triggers.errors import NotAuthentic
from triggers.event import Delivery

MIN_SECRET = 16  #: bytes; a shorter secret is guessed, so it authenticates nothing
TOLERANCE = 300  #: seconds that a signed timestamp may be away, https://www.standardwebhooks.com
SIGNING_PREFIX = b"whsec_"

_TIMESTAMP = re.compile(r"[0-9]{1,11}")


def weakness(secret: bytes) -> str:
    """What is wrong with a secret, to be said when the service starts; "" when it will do."""
    if len(secret) < MIN_SECRET:
        return f"is shorter than {MIN_SECRET} bytes: every delivery would be refused"
    if secret.startswith(SIGNING_PREFIX) and not _signing_key(secret):
        return "starts with `whsec_` but is not a signing token: base64 of at least 16 bytes must follow"
    return ""


def check_bearer(delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """`Authorization: Bearer <token>`; a configured token of two words is the header's whole value, as MinIO sends it.

    https://github.com/minio/minio/blob/7aac2a2c5b7c/internal/event/target/webhook.go (`send`)
    """
    given = _header(delivery, "authorization")
    scheme, _, credential = given.partition(b" ")
    bearer = credential.strip() if scheme.lower() == b"bearer" else b""
    _any(secrets, lambda secret: (given, secret) if len(secret.split()) == 2 else (bearer, secret))


def check_token(delivery: Delivery, header: str, secrets: Sequence[bytes]) -> None:
    """The secret itself in a header of its own."""
    given = _header(delivery, header)
    _any(secrets, lambda secret: (given, secret))


def check_hmac(delivery: Delivery, header: str, secrets: Sequence[bytes]) -> None:
    """`sha256=` and the hex HMAC-SHA256 of the raw body.

    https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    """
    given = _header(delivery, header)
    _any(secrets, lambda secret: (given, b"sha256=" + _digest(secret, delivery.body).hex().encode()))


def check_standard_webhook(delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """Standard Webhooks, version `v1`: HMAC-SHA256 over `id.timestamp.body`; other versions are passed over.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    _check_signed(delivery, "webhook-", ("id", "timestamp", "signature"), map(_signing_key, secrets))


def check_mlflow_webhook(delivery: Delivery, secrets: Sequence[bytes]) -> None:
    """MLflow's: the same construction, under other header names, and the secret is the key as it stands.

    https://github.com/mlflow/mlflow/blob/master/mlflow/webhooks/delivery.py
    """
    usable = [secret for secret in secrets if not weakness(secret)]
    _check_signed(delivery, "x-mlflow-", ("delivery-id", "timestamp", "signature"), usable)


def _check_signed(delivery: Delivery, prefix: str, names: Sequence[str], keys: Iterable[bytes]) -> None:
    """`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`, in one of up to ten signatures, and not long ago."""
    identifier, timestamp, given = (_header(delivery, prefix + name) for name in names)
    if not _TIMESTAMP.fullmatch(timestamp.decode("latin-1")):
        raise NotAuthentic("the timestamp is not a number of seconds")
    if abs(delivery.received_at.timestamp() - int(timestamp)) > TOLERANCE:
        raise NotAuthentic(f"the timestamp is more than {TOLERANCE} s away")
    signed = b".".join((identifier, timestamp, delivery.body))
    expected = [b"v1," + base64.b64encode(_digest(key, signed)) for key in keys if key]
    if not _matches((signature, one) for signature in given.split()[:10] for one in expected):
        raise NotAuthentic("the signature does not match")


def _header(delivery: Delivery, name: str) -> bytes:
    """The header's bytes as they were sent: servers decode headers as Latin-1."""
    text = delivery.headers.get(name, "")
    if not text:
        raise NotAuthentic(f"the header {name} is missing")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _any(secrets: Sequence[bytes], pair: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    usable = [secret for secret in secrets if not weakness(secret)]
    if not usable:
        raise NotAuthentic("no usable secret is configured")
    if not _matches(pair(secret) for secret in usable):
        raise NotAuthentic


def _matches(pairs: Iterable[tuple[bytes, bytes]]) -> bool:
    """Every pair is compared, whichever matches: the time says nothing of which one did."""
    return sum([hmac.compare_digest(given, expected) for given, expected in pairs]) > 0


def _digest(secret: bytes, message: bytes) -> bytes:
    return hmac.new(secret, message, hashlib.sha256).digest()


def _signing_key(secret: bytes) -> bytes:
    """The key inside a `whsec_` secret; empty when it is not one."""
    if not secret.startswith(SIGNING_PREFIX):
        return b""
    encoded = secret.removeprefix(SIGNING_PREFIX)
    try:
        key = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return b""
    return key if len(key) >= MIN_SECRET else b""
