"""Objects by URI: rows counted without holding the object, names taken as they are, errors in our two words."""

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service import buckets, embedded
from service.errors import Permanent, Temporary
from service.objects import MAX_REPORT, MAX_REPORTS, S3Objects, _count, split
from service.settings import ObjectSettings
from service.supervise import Supervisor


def lines(text: bytes) -> int:
    """The same, said plainly."""
    return len([line for line in text.split(b"\n") if line.strip()])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"", 0),
        (b"\n", 0),
        (b"user_id", 1),
        (b"user_id\n", 1),
        (b"user_id\n1\n2\n", 3),
        (b"user_id\n1\n2", 3),
        (b"user_id\r\n1\r\n2\r\n", 3),
        (b"user_id\n\n1\n   \n\t\n2\n\n", 3),
        (b"user_id\r\n\r\n1", 2),
        (b"\xef\xbb\xbfuser_id\n1\n", 2),
        ("größe\n1".encode(), 2),
    ],
)
def test_a_row_is_a_line_with_something_in_it(text: bytes, count: int) -> None:
    assert _count(iter([text])) == count


@given(st.lists(st.sampled_from([b"", b"1", b"user_id", b" ", b"\r", b"\n", b"\r\n", b"a,b", b"\t"]), max_size=40))
def test_pieces_cut_anywhere_count_the_same(pieces: list[bytes]) -> None:
    assert _count(iter(pieces)) == _count(iter([b"".join(pieces)])) == lines(b"".join(pieces))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_cut_anywhere_count_the_same(text: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(ends)]
    assert _count(iter(pieces)) == lines(text)


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://bucket/key", "bucket", "key"),
        ("s3://bucket/a/b/c.csv", "bucket", "a/b/c.csv"),
        ("s3://bucket//a//b", "bucket", "/a//b"),
        ("s3://bucket/a b+c%20?x=1#y", "bucket", "a b+c%20?x=1#y"),
        ("s3://bucket/../../etc/passwd", "bucket", "../../etc/passwd"),
        ("s3://bucket/s3://other/key", "bucket", "s3://other/key"),
        ("s3://bucket/\n\x1b[2J", "bucket", "\n\x1b[2J"),
    ],
)
def test_a_key_is_taken_as_it_is(uri: str, bucket: str, key: str) -> None:
    assert split(uri) == (bucket, key)


@given(st.text(min_size=1))
def test_a_key_may_hold_anything(key: str) -> None:
    assert split(f"s3://bucket/{key}") == ("bucket", key)


@pytest.mark.parametrize(
    "uri", ["", "bucket/key", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "http://a/b", "S3://a/b"]
)
def test_what_is_no_object_is_said_to_be_none(uri: str) -> None:
    with pytest.raises(Permanent, match="must look like s3://bucket/key"):
        split(uri)


def store(endpoint: str = "", access_key: str = "a") -> S3Objects:
    settings = ObjectSettings(endpoint=endpoint, access_key=SecretStr(access_key), secret_key=SecretStr("s"))
    return S3Objects(settings)


ASKS: dict[str, Callable[[S3Objects], object]] = {
    "stat": lambda objects: objects.stat("s3://bucket/key"),
    "rows": lambda objects: objects.rows("s3://bucket/key", at_most=100),
    "reports": lambda objects: objects.reports("s3://bucket/reports/run"),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_without_a_store_it_says_which_setting(ask: Callable[[S3Objects], object]) -> None:
    with pytest.raises(Temporary, match="KFP_TRIGGERS_OBJECTS__ENDPOINT"):
        ask(store())


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_store_that_is_away_is_temporary(ask: Callable[[S3Objects], object]) -> None:
    with pytest.raises(Temporary, match="does not answer"):
        ask(store("http://127.0.0.1:1"))


@pytest.fixture
def answering() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """A store that answers with what is left in the list; the last for ever."""
    script: list[tuple[int, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            status, body = script[0] if len(script) == 1 else script.pop(0)
            self.send_response(status)
            self.send_header("Content-Type", "application/xml" if body.startswith(b"<") else "text/csv")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = _answer  # noqa: N815  # the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", script
        server.shutdown()
        thread.join()


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>canary</Message><Resource>/</Resource></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "word", "says"),
    [
        (404, error("NoSuchKey"), Permanent, "there is no s3://bucket/reports/run"),
        (404, error("NoSuchBucket"), Permanent, "there is no"),
        (403, error("AccessDenied"), Temporary, "refuses s3://bucket/reports/run: AccessDenied"),
        (403, error("SignatureDoesNotMatch"), Temporary, "refuses"),
        (503, error("SlowDown"), Temporary, "SlowDown"),
        (500, error("InternalError"), Temporary, "InternalError"),
        (200, b"not XML at all", Temporary, "does not answer"),
        (200, b"<ListBucketResult", Temporary, "does not answer"),
        (502, b"<html>a proxy</html>", Temporary, "object store"),
    ],
)
def test_its_errors_become_our_two_words(
    answering: tuple[str, list[tuple[int, bytes]]], status: int, body: bytes, word: type[Exception], says: str
) -> None:
    endpoint, script = answering
    script.append((status, body))
    with pytest.raises(word, match=says) as caught:
        store(endpoint).reports("s3://bucket/reports/run")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("uri", ["s3://x/key", "s3://a..b/key", "s3://192.168.0.1/key"])
def test_a_name_that_no_store_has_is_permanent(uri: str) -> None:
    with pytest.raises(Permanent, match="not the URI of an object"):
        store("http://127.0.0.1:1").stat(uri)


def test_an_object_that_breaks_off_is_temporary(answering: tuple[str, list[tuple[int, bytes]]]) -> None:
    endpoint, script = answering
    script += [(200, b"user_id\n1\n"), (200, b"user_id\n1\n2\n")]
    assert store(endpoint).rows("s3://bucket/key", at_most=100) == 2
    script[:] = [(200, b"x" * 100), (500, error("InternalError"))]
    with pytest.raises(Temporary):
        store(endpoint).rows("s3://bucket/key", at_most=100)


def test_more_than_the_rule_allows_is_not_read(answering: tuple[str, list[tuple[int, bytes]]]) -> None:
    endpoint, script = answering
    script.append((200, b"x" * 101))
    with pytest.raises(Permanent, match="has 101 bytes, more than the 100"):
        store(endpoint).rows("s3://bucket/key", at_most=100)


def test_reports_may_lie_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "räports of a run"
    folder.mkdir()
    (folder / "write_data.json").write_bytes(b"{}")
    (folder / "large.json").write_bytes(b"x" * (MAX_REPORT + 1))
    (folder / "other.txt").write_bytes(b"")
    (folder / "below").mkdir()
    (folder / "below" / "deep.json").write_bytes(b"{}")
    assert store().reports(folder.as_uri()) == {"write_data.json": b"{}"}
    assert store().reports((tmp_path / "nothing").as_uri()) == {}
    for number in range(MAX_REPORTS + 5):
        (folder / f"{number:03}.json").write_bytes(b"")
    assert len(store().reports(folder.as_uri())) == MAX_REPORTS


def test_a_report_that_cannot_be_read_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(Temporary):
        store().reports(tmp_path.as_uri())


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.S3]:
    folder = tmp_path_factory.mktemp("minio")
    port = embedded.ports(folder, ["minio"])["minio"]
    s3 = embedded.s3(folder, port, {})
    with Supervisor(folder) as supervisor:
        supervisor.start(embedded.minio(folder, port, []))
        buckets.make(s3, ["user-ids"])
        yield s3


def put(minio: embedded.S3, uri: str, body: bytes, content_type: str) -> None:
    bucket, key = split(uri)
    buckets.client(minio).put_object(bucket, key, io.BytesIO(body), len(body), content_type=content_type)


@pytest.fixture
def real(minio: embedded.S3) -> S3Objects:
    return S3Objects(
        ObjectSettings(
            endpoint=minio.endpoint, access_key=SecretStr(minio.access_key), secret_key=SecretStr(minio.secret_key)
        )
    )


@pytest.mark.parametrize("key", ["a.csv", "a b+c%20é?x=1#y&z", "//a//b", "deep/er/and/deeper", "emoji 🎉", "*", "~"])
def test_a_real_store_gives_back_what_was_put(minio: embedded.S3, real: S3Objects, key: str) -> None:
    uri = f"s3://user-ids/{key}"
    put(minio, uri, b"user_id\n1\n\n2", "text/csv")
    found = real.stat(uri)
    assert (found.uri, found.size, found.content_type) == (uri, 12, "text/csv")
    assert len(found.etag) == 32
    assert found.version_id
    assert real.rows(uri, found.version_id, at_most=100) == 2


def test_a_real_store_reads_the_very_version(minio: embedded.S3, real: S3Objects) -> None:
    uri = "s3://user-ids/twice.csv"
    put(minio, uri, b"user_id\n1", "text/csv")
    first = real.stat(uri).version_id
    put(minio, uri, b"user_id\n1\n2", "text/csv")
    assert (real.rows(uri, first, at_most=100), real.rows(uri, at_most=100)) == (1, 2)


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("s3://user-ids/nothing", ""),
        ("s3://no-such-bucket/key", ""),
        ("s3://user-ids/there", "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_a_real_store_says_for_good_that_there_is_none(
    minio: embedded.S3, real: S3Objects, uri: str, version: str
) -> None:
    put(minio, "s3://user-ids/there", b"", "text/csv")
    with pytest.raises(Permanent, match=f"there is no {uri}"):
        real.stat(uri, version)


def test_a_real_store_refuses_a_wrong_key_for_now(minio: embedded.S3) -> None:
    with pytest.raises(Temporary, match="refuses"):
        store(minio.endpoint, minio.access_key).stat("s3://user-ids/a.csv")


def test_a_real_store_lists_the_reports_right_under_the_prefix(minio: embedded.S3, real: S3Objects) -> None:
    for name in ("run/a.json", "run/b.json", "run/c.txt", "run/below/d.json", "runaway/e.json"):
        put(minio, f"s3://user-ids/reports/{name}", name.encode(), "application/json")
    assert dict(real.reports("s3://user-ids/reports/run")) == {"a.json": b"run/a.json", "b.json": b"run/b.json"}
    buckets.make(minio, ["made-now"])
    buckets.make(minio, ["made-now"])
    assert real.reports("s3://made-now/reports") == {}
