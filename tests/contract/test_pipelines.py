"""Compiled pipelines are uploaded once, found again by name and version, and their content is never exchanged.

For a user: `pipeline: name@version` in a rule is the file that was pushed, whatever it is called, and says what there
is when it is not there.
"""

import time

import pytest
from contract.packages import package, package_with_platform
from contract.target import Target

from service.errors import Permanent
from service.kubeflow import KubeflowBackend
from service.packages import compiled

ODD = {
    "spaces": "two  words",
    "unicode": "Größe ✓ 日本語",
    "plus": "a+b",
    "percent": "100% a%25b",
    "quotes": "a\"b'c`d",
    "others": "a/b?c#d&e=f\\g*",
}
UPLOADS = ("POST /apis/v2beta1/pipelines", "POST /apis/v2beta1/pipelines/upload_version")


@pytest.fixture(scope="module")
def three(target: Target, backend: KubeflowBackend) -> str:
    """A pipeline with three versions; KFP's times have whole seconds, and within one chance decides the order."""
    name = target.name("versions")
    for version, pause in (("first", 0), ("second", 1.1), ("third", 1.1)):
        time.sleep(pause)
        assert backend.push(name, version, package(version))
    return name


def test_a_push_makes_pipeline_and_version_and_again_uploads_nothing(target: Target) -> None:
    name = target.name("pushed")
    with target.counted() as (backend, proxy):
        assert backend.push(name, "v1", package()) is True
        assert [proxy.times(one) for one in UPLOADS] == [1, 1], proxy.asked
        assert backend.push(name, "v1", package()) is False
        assert backend.push(name, "v2", package("other")) is True
        assert [proxy.times(one) for one in UPLOADS] == [1, 2], proxy.asked
    with target.counted() as (fresh, proxy):
        assert fresh.push(name, "v1", package()) is False
        assert [proxy.times(one) for one in UPLOADS] == [0, 0], proxy.asked
    assert {one.version for one in target.backend().versions(name)} == {"v1", "v2"}


def test_other_content_under_the_same_name_is_refused(target: Target, backend: KubeflowBackend) -> None:
    name = target.name("changed")
    backend.push(name, "v1", package())
    with pytest.raises(Permanent, match="other content"):
        backend.push(name, "v1", package("other"))
    assert [one.digest for one in backend.versions(name)] == [compiled(package(), "").digest]


@pytest.mark.parametrize("content", [package(), package_with_platform()], ids=["alone", "with a platform spec"])
def test_the_digest_is_that_of_the_local_file(target: Target, content: bytes) -> None:
    backend, local = target.backend(), compiled(content, "the file")
    name = target.name(f"digest of {len(content)}")
    backend.push(name, "v1", content)
    found = backend.pipeline(f"{name}@v1")
    assert found.digest == local.digest, (
        "this server gives a pipeline back with other values; kfp-triggers relies on them for a version's identity"
    )
    assert backend.versions(name)[0].digest == local.digest
    assert found.inputs == local.inputs
    assert type(found.inputs["i"].default) is int


def test_versions_come_newest_first_and_latest_is_the_newest(backend: KubeflowBackend, three: str) -> None:
    assert [one.version for one in backend.versions(three)] == ["third", "second", "first"]
    assert backend.pipeline(f"{three}@latest").version == "third"
    assert backend.pipeline(f"{three}@first").version == "first"


def test_versions_on_many_pages_are_all_found(target: Target, three: str) -> None:
    with target.counted(page_size=2) as (backend, proxy):
        assert [one.version for one in backend.versions(three)] == ["third", "second", "first"]
        assert proxy.times("GET /apis/v2beta1/pipelines/ID/versions") == 2, proxy.asked
        assert backend.pipeline(f"{three}@first").version == "first"


def test_what_is_not_there_is_named_with_what_there_is(target: Target, backend: KubeflowBackend, three: str) -> None:
    with pytest.raises(Permanent, match="third, second, first"):
        backend.pipeline(f"{three}@fourth")
    with pytest.raises(Permanent, match="there is no pipeline"):
        backend.pipeline(f"{target.name('nowhere')}@v1")


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_of_pipelines_and_versions_are_found_again(target: Target, odd: str) -> None:
    name, version = target.name(ODD[odd]), ODD[odd]
    assert target.backend().push(name, version, package()) is True
    fresh = target.backend()
    found = fresh.pipeline(f"{name}@{version}")
    assert (found.name, found.version) == (name, version)
    assert fresh.push(name, version, package()) is False
    assert [(one.pipeline, one.version) for one in fresh.versions(name)] == [(name, version)]


def test_a_version_that_was_replaced_behind_our_back_is_not_run(target: Target, backend: KubeflowBackend) -> None:
    name = target.name("replaced")
    backend.push(name, "v1", package())
    decided = backend.pipeline(f"{name}@v1")
    (version,) = target.backend().versions(name)
    pipeline_id = _pipeline_id(target, name)
    assert target.ask("DELETE", f"/pipelines/{pipeline_id}/versions/{version.id}").status_code == 200
    with pytest.raises(Permanent, match="there is no"):
        backend.create(target.job(decided, "short"))
    target.backend().push(name, "v1", package("other"))
    with pytest.raises(Permanent, match="not what it was"):
        target.backend().create(target.job(decided, "short"))
    target.ask("DELETE", f"/pipelines/{pipeline_id}/versions/{target.backend().versions(name)[0].id}")
    target.backend().push(name, "v1", package())
    assert backend.create(target.job(decided, "short")), "the same content again is the same version"


def _pipeline_id(target: Target, name: str) -> str:
    (found,) = [one for one in target.mine("pipelines", "pipeline_id") if one["display_name"] == name]
    return str(found["pipeline_id"])
