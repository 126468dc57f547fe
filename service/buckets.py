"""Makes buckets in MinIO and tells it to report their new objects to a webhook. For `up`, the demo and the tests.

Asks before it writes, and adds to what is there: the store may be one that ran before us.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio, MinioAdmin
from minio.commonconfig import ENABLED
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, MinioException, S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.versioningconfig import VersioningConfig
from urllib3.exceptions import HTTPError

from service.embedded import S3, Webhook
from service.errors import Refused

_BACK_WITHIN = 60.0  #: seconds
_CREATED = ["s3:ObjectCreated:*"]


def client(store: S3) -> Minio:
    """MinIO's own client."""
    parts = urlsplit(store.endpoint)
    return Minio(parts.netloc, store.access_key, store.secret_key, secure=parts.scheme == "https", region="us-east-1")


def make(store: S3, names: Sequence[str]) -> None:
    """Each bucket, with versions: a run reads the very object that the event told of, even if it was written over."""
    minio = client(store)
    for name in names:
        if not minio.bucket_exists(name):
            minio.make_bucket(name)
            minio.set_bucket_versioning(name, VersioningConfig(ENABLED))


def tell(store: S3, webhooks: Sequence[Webhook], queue: Path | None) -> None:
    """Make a running MinIO know webhooks: its configuration is set by its administrator's keys, and it is restarted."""
    parts = urlsplit(store.endpoint)
    admin = MinioAdmin(
        endpoint=parts.netloc,
        credentials=StaticProvider(store.access_key, store.secret_key),
        secure=parts.scheme == "https",
    )
    try:
        for one in webhooks:
            told = {"endpoint": one.url, "auth_token": one.token}
            if queue is not None:
                told["queue_dir"] = str(queue / one.id)
            admin.config_set(f"notify_webhook:{one.id}", told)
        admin.service_restart()
    except MinioAdminException as problem:
        raise Refused(f"{_by_hand(store, webhooks)}\n(these keys may not: {problem})") from problem
    _await_restart(admin, store)


def _await_restart(admin: MinioAdmin, store: S3) -> None:
    """Until it answers with an uptime of less than what has passed: before that it is the one that is to go."""
    asked = time.monotonic()
    while (passed := time.monotonic() - asked) < _BACK_WITHIN:
        try:
            uptimes = [server["uptime"] for server in json.loads(admin.info())["servers"]]
        except (MinioAdminException, MinioException, HTTPError, OSError, ValueError, LookupError):
            uptimes = []
        if uptimes and max(uptimes) <= passed + 1:
            return
        time.sleep(0.3)
    raise Refused(f"MinIO at {store.endpoint} did not come back after the restart that makes it know our webhooks")


def report(store: S3, bucket: str, webhook: Webhook) -> None:
    """Every new object of the bucket goes to the webhook; Refused with what to do when the store does not know it."""
    minio, arn = client(store), f"arn:minio:sqs::{webhook.id}:webhook"
    config = minio.get_bucket_notification(bucket)
    queues = [*(config.queue_config_list or [])]
    if any(one.queue == arn for one in queues):
        return
    queues.append(QueueConfig(queue=arn, events=_CREATED, config_id=f"kfp-triggers-{webhook.id}"))
    wanted = NotificationConfig(config.cloud_func_config_list, queues, config.topic_config_list)
    try:
        minio.set_bucket_notification(bucket, wanted)
    except S3Error as problem:
        raise Refused(f"{_by_hand(store, [webhook])}\n(bucket {bucket}: {problem.message})") from problem


def _by_hand(store: S3, webhooks: Sequence[Webhook]) -> str:
    """What an administrator would do."""
    lines = [f"MinIO at {store.endpoint} must be told of our webhooks once, by its administrator:"]
    lines += [
        f"  mc admin config set ALIAS notify_webhook:{one.id} endpoint={one.url} auth_token=… queue_dir=…"
        for one in webhooks
    ]
    return "\n".join([*lines, "  mc admin service restart ALIAS"])
