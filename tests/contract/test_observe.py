"""What happens to runs is seen in few calls: open ones, ended ones, deleted ones, and those that nobody asked about.

For a user: the state that kfp-triggers shows is KFP's, a second or two later, and watching is cheap for the server.
"""

import pytest
from contract.packages import pipeline_spec
from contract.target import ENDED, LONG, OPEN, STATELESS, Json, Target, all_of, among, where, word

from service.kubeflow import KubeflowBackend
from service.lifecycle import State
from service.ports import Pipeline

GET_ONE = "GET /apis/v2beta1/runs/ID"
LIST = "GET /apis/v2beta1/runs"
ALIVE = {State.SUBMITTED, State.RUNNING, State.SUCCEEDED, State.FAILED}


@pytest.mark.parametrize("what", [LONG, STATELESS])
def test_open_runs_are_seen_by_lists_alone_also_without_a_state(target: Target, pipeline: Pipeline, what: str) -> None:
    """A real server takes the state from a run that nobody executes; on one that executes there is none such."""
    ids = [target.backend().create(target.job(pipeline, what)) for _ in range(4)]
    target.begun(*ids)
    with target.counted() as (backend, proxy):
        still = list(ids)
        for _ in range(3):
            seen, _, all_seen = target.looked(backend, still, all_of(still))
            assert all_seen, f"seen of {len(still)} runs: {seen}"
            assert {one.state for one in seen.values()} <= ALIVE
            still = [run_id for run_id in still if not seen[run_id].ended_at]
        states = [target.run(run_id).get("state") for run_id in ids]
        asked, ended = proxy.times(GET_ONE), sum(state in ENDED for state in states)
        told = f"{asked} GETs of runs in the states {states}, which lists by state can show: {proxy.asked}"
        assert asked <= ended, told  # one that ends while the ends are read for the first time may cost a GET


def test_open_runs_on_many_pages_are_all_seen(target: Target, pipeline: Pipeline) -> None:
    ids = [target.backend().create(target.job(pipeline)) for _ in range(5)]
    given = {"filter": where(among("state", *OPEN)), "namespace": target.settings.namespace, "page_size": 1}
    size = max(2, int(target.get("/runs", **given).get("total_size", 0)) // 8)  # there may be many that are not ours
    with target.counted(page_size=size) as (backend, proxy):
        seen, _, all_seen = target.looked(backend, ids, all_of(ids))
        assert all_seen, f"seen of {len(ids)} runs on pages of {size}: {seen}"
        assert {one.state for one in seen.values()} <= ALIVE
        assert proxy.times(LIST) >= 3


def test_more_than_a_page_of_open_runs_on_the_stub(target: Target) -> None:
    """Only there: elsewhere these are as many real runs. The test above does the same with small pages anywhere."""
    if target.stub is None:
        pytest.skip("only on the stub")
    ids = target.stub.many_runs(250, name=f"{target.name('many')} {word()}")
    with target.counted() as (backend, proxy):
        seen, _, all_seen = target.looked(backend, ids, all_of(ids))
        assert all_seen, f"{len(seen)} of {len(ids)} were seen"
        assert {one.state for one in seen.values()} == {State.RUNNING}
        assert proxy.times(GET_ONE) == 0
        assert proxy.times(LIST) <= 10, proxy.asked


def test_a_deleted_run_is_gone_and_no_other(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    kept, deleted = (backend.create(target.job(pipeline)) for _ in range(2))
    watching = target.backend()
    target.looked(watching, [kept, deleted], all_of([kept, deleted]))
    assert target.ask("DELETE", f"/runs/{deleted}").status_code == 200
    seen, _, found = target.looked(
        watching, [kept, deleted], lambda seen, _: deleted in seen and seen[deleted].state is State.GONE
    )
    assert found, f"a run was deleted, and is seen as {seen.get(deleted)}"
    assert seen[kept].state in ALIVE


def test_a_run_that_never_was_is_gone(target: Target, open_run: str) -> None:
    never = "00000000-0000-4000-8000-000000000000"
    seen, _, found = target.looked(target.backend(), [never], all_of([never]))
    assert found, "this server has no 404 for a run that never was"
    assert seen[never].state is State.GONE


def test_an_open_run_with_a_key_that_nobody_asked_about_is_a_sighting(target: Target, pipeline: Pipeline) -> None:
    mine = target.backend().create(target.job(pipeline))
    job = target.job(pipeline)
    other = target.backend().create(job)
    _, others, found = target.looked(target.backend(), [mine], lambda _, others: other in others)
    assert found or _has_ended(target, other), "an open run that nobody asked about was not seen"
    if found:
        assert others[other].run_key == job.run_key
    assert mine not in others


def _has_ended(target: Target, run_id: str) -> bool:
    return target.run(run_id).get("state") in {"SUCCEEDED", "FAILED"}


def test_a_run_without_a_key_is_none_of_ours(target: Target, pipeline: Pipeline) -> None:
    mine = target.backend().create(target.job(pipeline))
    foreign = target.post_run(f"{LONG} somebody's own", pipeline_spec=pipeline_spec()).json()["run_id"]
    backend = target.backend()
    for _ in range(3):
        _, others, _ = target.looked(backend, [mine], all_of([mine]))
        assert foreign not in others


def test_an_archived_run_is_still_seen(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    run_id = backend.create(target.job(pipeline))
    assert target.ask("POST", f"/runs/{run_id}:archive").status_code == 200
    seen, _, found = target.looked(target.backend(), [run_id], all_of([run_id]))
    assert found, "this server lists no archived run; kfp-triggers relies on it, for people archive what still runs"
    assert seen[run_id].state in ALIVE


def test_the_end_of_a_run_is_seen_with_its_time_and_images(target: Target, ended: Json) -> None:
    run_id = ended["run_id"]
    seen, _, found = target.looked(target.backend(), [run_id], lambda seen, _: run_id in seen and seen[run_id].ended_at)
    assert found, f"the end was not seen: {seen}; the server says {ended.get('state')}"
    one = seen[run_id]
    assert one.state is (State.SUCCEEDED if ended["state"] == "SUCCEEDED" else State.FAILED)
    assert one.started_at is not None
    assert one.ended_at is not None
    assert one.started_at <= one.ended_at
    assert one.outputs["images"]
    if one.state is State.FAILED:
        pytest.fail(f"the suite's own run failed on this server: {one.error}")


def test_nothing_open_is_called_ended(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    run_id = backend.create(target.job(pipeline))
    seen, _, _ = target.looked(target.backend(), [run_id], all_of([run_id]))
    if target.run(run_id).get("state") in {None, "PENDING", "RUNNING"}:
        assert seen[run_id].state in {State.SUBMITTED, State.RUNNING}
        assert seen[run_id].ended_at is None
