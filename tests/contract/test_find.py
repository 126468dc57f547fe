"""A run is found by the key at the end of its name, exactly, and so are all its doubles.

For a user: after a lost answer no event is run twice unseen.
"""

import time

import pytest
from contract.packages import pipeline_spec
from contract.target import LONG, Target, word

from service.kubeflow import KubeflowBackend
from service.ports import Pipeline


@pytest.fixture(scope="module")
def doubles(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> tuple[str, list[str]]:
    """A key, and the three runs that have it, the oldest first; KFP's times have whole seconds."""
    key, ids = word(), []
    for pause in (0, 1.1, 1.1):
        time.sleep(pause)
        ids.append(backend.create(target.job(pipeline, key=key)))
    return key, ids


def test_a_run_is_found_as_soon_as_it_was_made(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    job = target.job(pipeline)
    run_id = backend.create(job)
    assert backend.find(job.run_key) == [run_id]


def test_an_unknown_key_has_no_run(backend: KubeflowBackend, open_run: str) -> None:
    assert backend.find(word()) == []


def test_a_key_elsewhere_in_a_name_is_no_hit(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    key = word()
    others = [f"x{key}", f"{key}x", f"{key} {word()}", key.upper()]
    for other in others:
        assert target.post_run(f"{LONG} {other}", pipeline_spec=pipeline_spec()).status_code == 200
    assert backend.find(key) == []
    run_id = backend.create(target.job(pipeline, key=key))
    assert backend.find(key) == [run_id]


def test_doubles_are_all_found_the_oldest_first(backend: KubeflowBackend, doubles: tuple[str, list[str]]) -> None:
    key, ids = doubles
    assert backend.find(key) == ids


def test_doubles_on_more_than_one_page_are_all_found(target: Target, doubles: tuple[str, list[str]]) -> None:
    key, ids = doubles
    with target.counted(page_size=2) as (backend, proxy):
        assert backend.find(key) == ids
        assert proxy.times("GET /apis/v2beta1/runs") == 2, proxy.asked


def test_an_archived_run_is_found(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    job = target.job(pipeline)
    run_id = backend.create(job)
    assert target.ask("POST", f"/runs/{run_id}:archive").status_code == 200
    assert target.run(run_id)["storage_state"] == "ARCHIVED"
    assert backend.find(job.run_key) == [run_id]
