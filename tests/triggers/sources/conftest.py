"""The configured senders that these tests speak for, and the captured requests."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from triggers.event import Delivery, Reading
from triggers.sources import SOURCES

CAPTURED = Path(__file__).parent / "captured"
RECEIVED_AT = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)

SETTINGS: dict[str, dict[str, Any]] = {
    "minio": {"buckets": ["user-ids", "models"]},
    "alertmanager": {},
    "github": {"repositories": ["Codertocat/Hello-World"]},
    "gitlab": {"repositories": {"mike/diaspora": {"url": "ssh://git@gitlab.example/mike/diaspora.git"}}},
    "git": {"repositories": {"acme/income-model": {"url": "ssh://git@git.example/srv/git/income-model.git"}}},
    "mlflow": {"models": ["income-classifier"]},
    "manual": {},
}
SECRETS = {
    "minio": [b"uploads-token-0123456789"],
    "alertmanager": [b"alerts-token-0123456789"],
    "github": [b"It's a Secret to Everybody"],
    "gitlab": [b"gitlab-token-0123456789", b"whsec_" + base64.b64encode(b"kfp-triggers-signing-token-32-by")],
    "git": [b"git-hook-secret-0123456789"],
    "mlflow": [b"registry-secret-0123456789"],
    "manual": [b"manual-token-0123456789"],
}


def _delivery(raw: bytes, source: str) -> Delivery:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
    headers = {name.lower(): value.strip() for name, _, value in lines}
    return Delivery(source=source, headers=headers, body=body, received_at=RECEIVED_AT)


@pytest.fixture(scope="session")
def captured() -> Callable[[str, str], Delivery]:
    """A captured request of a source, as the door hands it over."""
    return lambda source, case: _delivery((CAPTURED / source / f"{case}.http").read_bytes(), source)


@pytest.fixture(scope="session")
def deliver() -> Callable[..., Delivery]:
    """A request of one's own making."""

    def make(source: str, body: bytes | str, **headers: str) -> Delivery:
        raw = body if isinstance(body, bytes) else body.encode()
        named = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return Delivery(source=source, headers=named, body=raw, received_at=RECEIVED_AT)

    return make


@pytest.fixture(scope="session")
def config() -> Callable[..., BaseModel]:
    """A source's settings, with what a test changes in them."""
    return lambda source, **changes: SOURCES[source].config.model_validate(SETTINGS[source] | changes)


@pytest.fixture(scope="session")
def read(config: Callable[..., BaseModel]) -> Callable[[Delivery], Reading]:
    """What the delivery's source reads in it."""
    return lambda delivery: SOURCES[delivery.source].read(config(delivery.source), delivery)


@pytest.fixture(scope="session")
def verify(config: Callable[..., BaseModel]) -> Callable[..., None]:
    """Let the delivery's source verify it, by its usual secrets or by others."""

    def check(delivery: Delivery, secrets: list[bytes] | None = None) -> None:
        known = SECRETS[delivery.source] if secrets is None else secrets
        SOURCES[delivery.source].verify(config(delivery.source), delivery, known)

    return check
