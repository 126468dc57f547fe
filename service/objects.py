"""S3 objects through the MinIO client, by URI; reports also from `file://`, for a home without an object store.

Fits `service.ports.Objects`. Keys are opaque: never a path of ours but under a report prefix that we made.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import MinioException, S3Error
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from service.errors import Permanent, Temporary
from service.ports import ObjectInfo
from service.settings import ObjectSettings

MAX_REPORT = 1 << 20
MAX_REPORTS = 100
CHUNK = 1 << 20
PAGE = 1_000  #: objects of a listing that are held at once: as many as S3 sends


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` → bucket and key; the key may hold anything."""
    scheme, _, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    if scheme != "s3" or not bucket or not slash or not key:
        raise Permanent(f"not the URI of an object: {uri[:200]}; it must look like s3://bucket/key")
    return bucket, key


class S3Objects:
    """One client; thread-safe as urllib3's pool is."""

    def __init__(self, settings: ObjectSettings) -> None:
        self._endpoint = settings.endpoint
        self._pool = _pool()
        self._client = _client(settings, self._pool) if settings.endpoint else None

    def is_there(self) -> bool:
        """Whether the settings name a store."""
        return self._client is not None

    def now(self) -> datetime:
        """The `Date` of any answer of its: this one needs no permission."""
        if self._client is None:
            raise _nowhere()
        with _translated(self._endpoint):
            said = self._pool.request("HEAD", self._endpoint).headers.get("Date", "")
        try:
            return parsedate_to_datetime(said)
        except ValueError as error:
            raise Temporary(f"what answers at {self._endpoint} does not say what time it is") from error

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Sequence[ObjectInfo]]:
        """By versions also where there are none: the only listing that names them."""
        uri = f"s3://{bucket}/{prefix}"
        with _translated(uri):
            found = self._minio.list_objects(bucket, prefix=prefix, recursive=True, include_version=True)
        page: list[ObjectInfo] = []
        while True:
            with _translated(uri):
                item = next(found, None)
            if item is None or len(page) == PAGE:
                yield page
                page = []
            if item is None:
                return
            if not item.is_delete_marker:
                page.append(_listed(bucket, item))

    def stat(self, uri: str, version_id: str = "") -> ObjectInfo:
        """Size, ETag, version and user metadata."""
        bucket, key = split(uri)
        with _translated(uri):
            found = self._minio.stat_object(bucket, key, version_id=version_id or None)
        return ObjectInfo(
            uri=uri,
            size=found.size or 0,
            etag=(found.etag or "").strip('"'),
            version_id=found.version_id or "",
            last_modified=found.last_modified or datetime.now(UTC),
            content_type=found.content_type or "",
            metadata=_user_metadata(found.metadata or {}),
        )

    def rows(self, uri: str, version_id: str = "", *, at_most: int) -> int:
        """Lines that are not blank, less the header. Reads the object once, in pieces; never holds it whole."""
        size = self.stat(uri, version_id).size
        if size > at_most:
            raise Permanent(f"{uri} has {size} bytes, more than the {at_most} that the rule allows to count")
        bucket, key = split(uri)
        with _translated(uri):
            response = self._minio.get_object(bucket, key, version_id=version_id or None)
            try:
                lines = _count(response.stream(CHUNK))
            finally:
                response.close()
                response.release_conn()
        return max(lines - 1, 0)

    def put(self, uri: str, body: bytes) -> None:
        """Write a JSON document. A bucket that is not there yet is a person's to make: ask again."""
        if uri.startswith("file://"):
            file = Path(unquote(urlsplit(uri).path))
            with _translated(uri):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(body)
            return
        bucket, key = split(uri)
        try:
            with _translated(uri):
                self._minio.put_object(bucket, key, io.BytesIO(body), len(body), content_type="application/json")
        except Permanent as error:
            raise Temporary(f"cannot write {uri}: is there a bucket {bucket}?", delay=30) from error

    def reports(self, prefix: str) -> Mapping[str, bytes]:
        """Every `.json` right under the prefix, by its name; those that are too large are left out."""
        if prefix.startswith("file://"):
            folder = Path(unquote(urlsplit(prefix).path))
            with _translated(prefix):
                files = [file for file in sorted(folder.glob("*.json")) if file.stat().st_size <= MAX_REPORT]
                return {file.name: file.read_bytes() for file in files[:MAX_REPORTS]}
        bucket, key = split(prefix)
        with _translated(prefix):
            found = self._minio.list_objects(bucket, prefix=key.rstrip("/") + "/")
            names = [item.object_name or "" for item in found if (item.size or 0) <= MAX_REPORT]
            names = [name for name in names if name.endswith(".json")][:MAX_REPORTS]
            return {name.rsplit("/", 1)[-1]: self._read(bucket, name) for name in names}

    def _read(self, bucket: str, key: str) -> bytes:
        response = self._minio.get_object(bucket, key)
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    @property
    def _minio(self) -> Minio:
        if self._client is None:
            raise _nowhere()
        return self._client


def _nowhere() -> Temporary:
    return Temporary("no object store is configured: set KFP_TRIGGERS_OBJECTS__ENDPOINT", delay=30)


def _listed(bucket: str, item: Any) -> ObjectInfo:
    return ObjectInfo(
        uri=f"s3://{bucket}/{item.object_name}",
        size=item.size or 0,
        etag=(item.etag or "").strip('"'),
        version_id="" if item.version_id in {None, "null"} else item.version_id,
        last_modified=item.last_modified,
        content_type="",
        metadata={},
    )


def _pool() -> PoolManager:
    retries = Retry(total=1, redirect=False, backoff_factor=0.2)
    return PoolManager(timeout=Timeout(connect=3, read=30), maxsize=10, retries=retries)


def _client(settings: ObjectSettings, pool: PoolManager) -> Minio:
    parts = urlsplit(settings.endpoint)
    return Minio(
        endpoint=parts.netloc,
        access_key=settings.access_key.get_secret_value() if settings.access_key else None,
        secret_key=settings.secret_key.get_secret_value() if settings.secret_key else None,
        secure=parts.scheme == "https",
        region=settings.region,
        http_client=pool,
    )


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed"}:
            raise Permanent(f"there is no {uri}") from error
        if error.code in {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            # A person must mend it; until then the event waits, it is not lost.
            raise Temporary(f"the object store refuses {uri}: {error.code}", delay=30) from error
        raise Temporary(f"the object store: {error.code} for {uri}") from error
    except (MinioException, HTTPError, OSError, ParseError) as error:
        raise Temporary(f"the object store does not answer: {type(error).__name__}") from error
    except ValueError as error:  # a name that no store has: the client's own refusal, before it asks
        raise Permanent(f"not the URI of an object: {uri[:200]}: {error}") from error


def _user_metadata(headers: Mapping[str, Any]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name.lower().removeprefix(prefix): str(value)
        for name, value in headers.items()
        if name.lower().startswith(prefix)
    }


def _count(pieces: Iterator[bytes]) -> int:
    """Lines with something other than white space in them."""
    lines, something = 0, False
    for piece in pieces:
        parts = piece.split(b"\n")
        for part in parts[:-1]:
            lines += something or bool(part.strip())
            something = False
        something = something or bool(parts[-1].strip())
    return lines + something
