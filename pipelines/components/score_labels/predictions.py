"""The prediction files that a label may be about: found by the metadata that write_data leaves in each, and read over
the network in pieces, only the columns that are needed. Called by score.py.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from minio.error import S3Error
from urllib3.exceptions import HTTPError

from pipelines.errors import PipelineError
from pipelines.instant import parse_instant
from pipelines.requested import AS_OF
from pipelines.storage import ObjectRef, Stored, connect, listed

KEY, SCORE = "user_id", "probability"
MODEL = re.compile(r"models:/(?P<name>.+)/(?P<version>\d+)")
CHUNK = 500_000  # rows
LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Predictions:
    """One file: which version of the model made it, and as of when."""

    ref: ObjectRef
    stored: Stored
    model: str
    version: int
    as_of: datetime | None  #: None: each row has a moment of its own

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Users, moments (microseconds since 1970) and probabilities of the rows that were scored."""
        columns = [KEY, SCORE] if self.as_of else [KEY, SCORE, AS_OF]
        with pq.ParquetFile(RemoteFile(self.ref, self.stored.size)) as file:
            for batch in file.iter_batches(CHUNK, columns=columns):
                rows = pa.Table.from_batches([batch]).drop_null()
                times = (
                    np.full(rows.num_rows, _micros(self.as_of), np.int64)
                    if self.as_of
                    else rows.column(AS_OF).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
                )
                yield rows.column(KEY).to_numpy(), times, rows.column(SCORE).to_numpy()


class RemoteFile(io.RawIOBase):
    """An object as a file that can be read from anywhere; always the content with its ETag, or an error."""

    def __init__(self, ref: ObjectRef, size: int) -> None:
        super().__init__()
        self._ref, self._size, self._at, self._client = ref, size, 0, connect()
        self.version = ref.etag  #: the version id, once something was read from a bucket that keeps versions

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Nothing is asked of the store."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Some bytes, in one request."""
        wanted = min(self._size - self._at, size if size >= 0 else self._size)
        if wanted <= 0:
            return b""
        try:
            response = self._client.get_object(
                bucket_name=self._ref.bucket,
                object_name=self._ref.key,
                offset=self._at,
                length=wanted,
                request_headers={"If-Match": f'"{self._ref.etag}"'},
            )
            try:
                content = bytes(response.read())
                self.version = response.headers.get("x-amz-version-id") or self._ref.etag
            finally:
                response.close()
                response.release_conn()
        except (S3Error, HTTPError) as error:
            code = error.code if isinstance(error, S3Error) else type(error).__name__
            raise PipelineError(f"{self._ref.uri} could not be read, or was replaced meanwhile: {code}") from error
        self._at += len(content)
        return content


def address(bucket: str, prefix: str) -> str:
    """A bucket, or a folder of it, as `find` takes it."""
    inside = prefix.strip("/")
    return f"s3://{bucket}/{inside}/" if inside else f"s3://{bucket}/"


def find(uri: str, model: str, between: tuple[datetime | None, datetime]) -> tuple[list[Predictions], int]:
    """The model's files, the oldest moment first, and how many others were looked at and left.

    A `uri` that ends in a slash is a prefix, or a whole bucket; another names one file, which must be predictions of
    that model. Left are files without the metadata, of other models, and of a moment outside of `between`.
    """
    one = not uri.endswith("/")
    there = [(ref, stored) for ref, stored in listed(uri) if (ref.uri == uri if one else ref.key.endswith(".parquet"))]
    if one and not there:
        raise PipelineError(f"there is no object {uri}; predictions_uri names a file, or a prefix that ends in a slash")
    described = [describe(ref, stored) for ref, stored in there]
    wanted = [found for found in described if found is not None and found.model == model]
    if one and not wanted:
        raise PipelineError(f"{uri} is no file of predictions of {model}, as income-batch-inference writes them")
    inside = [found for found in wanted if one or _between(found, between)]
    inside.sort(key=lambda found: (found.as_of or LAST, found.ref.key))
    return inside, len(described) - len(inside)


def describe(ref: ObjectRef, stored: Stored) -> Predictions | None:
    """What a file says of itself; None when it is no file of predictions. Reads its end only."""
    file = RemoteFile(ref, stored.size)
    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid:
        return None
    found = schema.metadata or {}
    told = {name.decode(errors="replace"): text.decode(errors="replace") for name, text in found.items()}
    made_by = MODEL.fullmatch(told.get("kfp_triggers.model", ""))
    if made_by is None or not {KEY, SCORE} <= set(schema.names):
        return None
    as_of = None
    if AS_OF not in schema.names:
        try:
            as_of = parse_instant(told.get("kfp_triggers.as_of", ""), "kfp_triggers.as_of")
        except PipelineError:
            return None
    return Predictions(ref, Stored(stored.size, file.version), made_by["name"], int(made_by["version"]), as_of)


def _between(one: Predictions, between: tuple[datetime | None, datetime]) -> bool:
    start, end = between
    return one.as_of is None or (one.as_of <= end and (start is None or one.as_of > start))


def _micros(moment: datetime) -> int:
    return int(np.datetime64(moment.replace(tzinfo=None), "us").astype(np.int64))
