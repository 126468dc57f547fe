"""Makes buckets in MinIO and tells it to report their new objects to a webhook. For `up`, the demo and the tests.

Asks before it writes, and adds to what is there: the store may be one that ran before us.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, QueueConfig
from minio.versioningconfig import VersioningConfig

from service.embedded import S3, Webhook
from service.errors import Refused

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
        raise Refused(_unknown_target(store, bucket, webhook, problem)) from problem


def _unknown_target(store: S3, bucket: str, webhook: Webhook, problem: S3Error) -> str:
    """A server takes its webhooks from its own configuration, which is not ours to write."""
    told = f"MinIO at {store.endpoint} will not report {bucket} to {webhook.id}: {problem.message}"
    if store.ours:
        return told
    return (
        f"{told}\nIt was not started by us, so its administrator must tell it once:\n"
        f"  mc admin config set ALIAS notify_webhook:{webhook.id} endpoint={webhook.url} auth_token=… queue_dir=…\n"
        "  mc admin service restart ALIAS"
    )
