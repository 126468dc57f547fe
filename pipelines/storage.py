"""Objects in S3-style storage, by the version that the run was asked to read; reports may also go to a folder.

Used by the steps that read or write something outside the run. Where and as whom comes from the environment
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_DEFAULT_REGION), never from a
parameter.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from minio import Minio
from minio.error import S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from pipelines.errors import PipelineError

# Up to this size one PUT; a larger object is a multipart upload, which no reader sees before it is complete either.
ONE_PUT = 64 * 1024 * 1024


@dataclass(frozen=True)
class ObjectRef:
    """An object, and which one of its contents: by version id, or by the ETag that it must still have."""

    bucket: str
    key: str
    version: str = ""
    etag: str = ""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Stored:
    """What lies there: its size, and the version id, or the ETag in a bucket without versions."""

    size: int
    version: str


def parse_s3(uri: str) -> ObjectRef:
    """`s3://bucket/key` taken apart; the key is everything after the first slash, as it stands."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise PipelineError(f"not an object's address, which looks like s3://bucket/key: {uri!r}")
    return ObjectRef(bucket, key)


def connect() -> Minio:
    """A client for the endpoint in the environment, AWS itself when there is none."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com")
    if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
        raise PipelineError("AWS_ENDPOINT_URL must look like http://host:port or https://host")
    return Minio(
        endpoint=endpoint.netloc,
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
        secure=endpoint.scheme == "https",
        region=os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
    )


def download(ref: ObjectRef, path: Path) -> Stored:
    """Copies exactly that object to a file. A replaced one (another ETag) is an error, never a silent other content."""
    with _explained(ref):
        response = _get(ref)
        try:
            with path.open("wb") as file:
                for block in response.stream(1024 * 1024):
                    file.write(block)
        finally:
            response.close()
            response.release_conn()
    version = response.headers.get("x-amz-version-id") or response.headers.get("etag", "").strip('"')
    return Stored(path.stat().st_size, version)


def stat(ref: ObjectRef) -> Stored:
    """Size and version of an object, without its content."""
    with _explained(ref):
        found = connect().stat_object(bucket_name=ref.bucket, object_name=ref.key, version_id=ref.version or None)
    return Stored(found.size or 0, found.version_id or (found.etag or "").strip('"'))


def objects_below(uri: str, suffix: str) -> list[ObjectRef]:
    """The objects whose keys begin with a prefix (`s3://bucket/folder/`) and end in `suffix`, in the order of names."""
    return [ObjectRef(ref.bucket, ref.key) for ref, _ in listed(uri) if ref.key.endswith(suffix)]


def listed(uri: str) -> list[tuple[ObjectRef, Stored]]:
    """The objects whose keys begin with a prefix, or all of a bucket (`s3://bucket/`), each with the ETag that it has.

    In the order of names.
    """
    whole = uri.endswith("/") and uri.count("/") == 3
    prefix = ObjectRef(uri.removeprefix("s3://").rstrip("/"), "") if whole else parse_s3(uri)
    with _explained(prefix):
        found = list(connect().list_objects(bucket_name=prefix.bucket, prefix=prefix.key or None, recursive=True))
    named = {item.object_name or "": (item.size or 0, (item.etag or "").strip('"')) for item in found}
    return [
        (ObjectRef(prefix.bucket, name, etag=etag), Stored(size, etag)) for name, (size, etag) in sorted(named.items())
    ]


def upload(ref: ObjectRef, path: Path, metadata: dict[str, str]) -> Stored:
    """Writes a file as one object, at once; content and metadata that already lie there are left alone.

    The digest goes into the metadata, so that a second execution of a run makes no new version and no new event.
    """
    with path.open("rb") as file:
        wanted = metadata | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    client = connect()
    with _explained(ref):
        if (there := _same(client, ref, wanted)) is not None:
            return there
        made = client.fput_object(
            bucket_name=ref.bucket, object_name=ref.key, file_path=str(path), metadata=dict(wanted), part_size=ONE_PUT
        )
    return Stored(path.stat().st_size, made.version_id or (made.etag or "").strip('"'))


def write_document(uri: str, content: bytes) -> None:
    """A small document, JSON or HTML, to `s3://bucket/key`, or to `file:///folder/name` by rename:

    nobody sees half of it.
    """
    if uri.startswith("file://"):
        path = Path(unquote(urlsplit(uri).path))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
        return
    ref = parse_s3(uri)
    with _explained(ref):
        connect().put_object(
            bucket_name=ref.bucket,
            object_name=ref.key,
            data=io.BytesIO(content),
            length=len(content),
            content_type="text/html; charset=utf-8" if ref.key.endswith(".html") else "application/json",
        )


def _get(ref: ObjectRef) -> BaseHTTPResponse:
    condition: dict[str, Any] = {} if ref.version or not ref.etag else {"If-Match": f'"{ref.etag.strip(chr(34))}"'}
    return connect().get_object(
        bucket_name=ref.bucket, object_name=ref.key, version_id=ref.version or None, request_headers=condition
    )


def _same(client: Minio, ref: ObjectRef, wanted: dict[str, str]) -> Stored | None:
    try:
        found = client.stat_object(bucket_name=ref.bucket, object_name=ref.key)
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            return None
        raise
    there = {name.lower(): value for name, value in (found.metadata or {}).items()}
    if any(there.get(f"x-amz-meta-{name}") != value for name, value in wanted.items()):
        return None
    return Stored(found.size or 0, found.version_id or (found.etag or "").strip('"'))


@contextmanager
def _explained(ref: ObjectRef) -> Iterator[None]:
    """The store's refusals in the words of whoever wrote the parameters."""
    try:
        yield
    except S3Error as error:
        raise PipelineError(_explain(error, ref)) from error
    except HTTPError as error:
        raise PipelineError(f"{ref.uri}: {type(error).__name__} while talking to the object store") from error


def _explain(error: S3Error, ref: ObjectRef) -> str:
    version = f" (version {ref.version})" if ref.version else ""
    reasons = {
        "NoSuchKey": f"there is no object {ref.uri}",
        "NoSuchBucket": f"there is no bucket {ref.bucket!r}",
        "NoSuchVersion": f"{ref.uri} has no version {ref.version}; was it deleted?",
        "MethodNotAllowed": f"{ref.uri}{version} is a delete marker: the object was removed",
        "AccessDenied": f"the credentials of this step may not use {ref.uri}",
        "InvalidAccessKeyId": "the object store does not know AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the object store refuses AWS_SECRET_ACCESS_KEY",
        "PreconditionFailed": f"{ref.uri} was replaced after the event: it no longer has the ETag {ref.etag}. "
        "The new content has an event of its own",
    }
    return reasons.get(error.code or "", f"{ref.uri}{version}: the object store answered {error.code}")
