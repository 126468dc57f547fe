"""Objects by version, refusals in plain words, one write."""

import io
from pathlib import Path
from typing import Any

import pytest
from minio.versioningconfig import VersioningConfig

from pipelines.errors import PipelineError
from pipelines.storage import ObjectRef, download, parse_s3, upload, write_document


def put(storage: Any, bucket: str, key: str, content: bytes) -> Any:
    return storage.client.put_object(bucket, key, io.BytesIO(content), len(content))


def read(ref: ObjectRef, folder: Path) -> bytes:
    download(ref, folder / "copy")
    return (folder / "copy").read_bytes()


def test_a_version_is_read_though_a_newer_one_lies_there(storage_env: Any, bucket: str, tmp_path: Path) -> None:
    storage_env.client.set_bucket_versioning(bucket, VersioningConfig("Enabled"))
    first = put(storage_env, bucket, "a b/ü.csv", b"first")
    put(storage_env, bucket, "a b/ü.csv", b"second")
    assert read(ObjectRef(bucket, "a b/ü.csv", first.version_id), tmp_path) == b"first"


def test_an_object_with_the_etag_asked_for_is_read(storage_env: Any, bucket: str, tmp_path: Path) -> None:
    etag = put(storage_env, bucket, "ids.csv", b"first").etag
    assert read(ObjectRef(bucket, "ids.csv", etag=etag), tmp_path) == b"first"


def test_a_replaced_object_is_refused(storage_env: Any, bucket: str, tmp_path: Path) -> None:
    etag = put(storage_env, bucket, "ids.csv", b"first").etag
    put(storage_env, bucket, "ids.csv", b"second")
    with pytest.raises(PipelineError, match="was replaced after the event"):
        read(ObjectRef(bucket, "ids.csv", etag=etag), tmp_path)


def test_what_is_missing_is_named(storage_env: Any, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"there is no object s3://{bucket}/ids\.csv"):
        read(ObjectRef(bucket, "ids.csv"), tmp_path)
    with pytest.raises(PipelineError, match="there is no bucket 'no-such-bucket'"):
        read(ObjectRef("no-such-bucket", "ids.csv"), tmp_path)


def test_a_wrong_secret_is_told_apart(
    storage_env: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-one")
    with pytest.raises(PipelineError, match="refuses AWS_SECRET_ACCESS_KEY") as caught:
        read(ObjectRef(bucket, "ids.csv"), tmp_path)
    assert "another-one" not in str(caught.value)


def test_the_same_content_of_the_same_run_makes_no_second_version(
    storage_env: Any, bucket: str, tmp_path: Path
) -> None:
    storage_env.client.set_bucket_versioning(bucket, VersioningConfig("Enabled"))
    (tmp_path / "out").write_bytes(b"content")
    made = [upload(ObjectRef(bucket, "out"), tmp_path / "out", {"run-key": "k1"}) for _ in range(2)]
    upload(ObjectRef(bucket, "out"), tmp_path / "out", {"run-key": "k2"})
    versions = list(storage_env.client.list_objects(bucket, prefix="out", include_version=True))
    assert made[0] == made[1]
    assert len(versions) == 2
    assert storage_env.client.stat_object(bucket, "out").metadata["x-amz-meta-run-key"] == "k2"


def test_a_report_may_go_to_a_folder(tmp_path: Path) -> None:
    write_document((tmp_path / "a b" / "step.json").as_uri(), b"{}")
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["step.json"]


@pytest.mark.parametrize("uri", ["", "s3://", "s3://bucket", "s3://bucket/", "http://bucket/key", "/bucket/key"])
def test_what_is_no_object_s_address_is_refused(uri: str) -> None:
    with pytest.raises(PipelineError, match="s3://bucket/key"):
        parse_s3(uri)
