"""A run is ended when somebody says so, and only a failed one is taken up again.

For a user: `runs cancel` ends the run in KFP and may be said twice; `runs retry` does not pretend.
"""

import time

import pytest
from contract.target import Json, Target

from service.errors import Permanent
from service.kubeflow import KubeflowBackend
from service.lifecycle import State
from service.ports import Pipeline

ENDING = {"CANCELING", "FAILED", "CANCELED"}


@pytest.fixture
def cancelled(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> str:
    run_id = backend.create(target.job(pipeline))
    backend.cancel(run_id)
    return run_id


def test_a_cancelled_run_ends_and_to_say_it_twice_is_nothing(
    target: Target, backend: KubeflowBackend, cancelled: str
) -> None:
    state = target.run(cancelled).get("state")
    assert state in ENDING, f"this server was told to end a run, and says {state} of it"
    backend.cancel(cancelled)
    backend.cancel(cancelled)
    assert target.run(cancelled).get("state") in ENDING


def test_a_cancelled_run_stays_in_sight_until_it_has_ended(target: Target, cancelled: str) -> None:
    seen, _, found = target.looked(target.backend(), [cancelled], lambda seen, _: cancelled in seen)
    assert found
    assert seen[cancelled].state in {State.RUNNING, State.CANCELLED}


def test_the_end_of_a_cancelled_run_is_told_from_a_failure(target: Target, ended: Json, cancelled: str) -> None:
    """By CANCELING in its history, which KFP 2.17 leaves out when the end is reported before it."""
    target.executed(cancelled)
    seen, _, found = target.looked(target.backend(), [cancelled], lambda seen, _: seen and seen[cancelled].ended_at)
    assert found
    history = [past.get("state") for past in target.run(cancelled).get("state_history", [])]
    if "CANCELING" in history or target.run(cancelled)["state"] == "CANCELED":
        assert seen[cancelled].state is State.CANCELLED, history
    else:
        assert seen[cancelled].state in {State.FAILED, State.SUCCEEDED}, history


def test_to_cancel_an_ended_run_is_nothing(target: Target, backend: KubeflowBackend, ended: Json) -> None:
    backend.cancel(ended["run_id"])
    time.sleep(0.3)
    assert target.run(ended["run_id"])["state"] == ended["state"]


def test_to_cancel_a_run_that_was_deleted_is_nothing(
    target: Target, backend: KubeflowBackend, pipeline: Pipeline
) -> None:
    run_id = backend.create(target.job(pipeline))
    target.ask("DELETE", f"/runs/{run_id}")
    backend.cancel(run_id)
    backend.cancel("00000000-0000-4000-8000-000000000000")


def test_a_run_that_did_not_fail_is_not_taken_up_again(target: Target, backend: KubeflowBackend, open_run: str) -> None:
    if target.run(open_run).get("state") == "FAILED":
        pytest.fail("the suite's own run failed on this server")
    with pytest.raises(Permanent, match="409"):
        backend.retry(open_run)


def test_a_run_that_succeeded_is_not_taken_up_again(backend: KubeflowBackend, ended: Json) -> None:
    assert ended["state"] == "SUCCEEDED", f"the suite's own run failed on this server: {ended}"
    with pytest.raises(Permanent, match="409"):
        backend.retry(ended["run_id"])


def test_a_run_that_was_ended_is_taken_up_again_under_its_id(
    target: Target, backend: KubeflowBackend, ended: Json, cancelled: str
) -> None:
    target.executed(cancelled)
    backend.retry(cancelled)
    again = target.run(cancelled)
    assert again["run_id"] == cancelled
    history = [past.get("state") for past in again["state_history"]]
    assert again.get("state") in {"RUNNING", "PENDING", "SUCCEEDED"}, f"this server retried a run into {history}"


def test_there_is_always_something_to_read_of_a_run(backend: KubeflowBackend, open_run: str) -> None:
    text = backend.log(open_run)
    assert "PENDING" in text
    assert open_run in text
