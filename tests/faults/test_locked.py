"""F6 on either store: another program holds it for long."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.report import Account
from faults.stage import Stage, bound


@pytest.mark.faults
@pytest.mark.quick
@pytest.mark.both
def test_F06_while_another_writes_for_long_it_answers_503_in_time(stage: Stage, account: Account) -> None:  # noqa: N802
    api = stage.api(KFP_TRIGGERS_STORE__BUSY_TIMEOUT="1")
    stage.deliver()
    stage.settled(1)
    tasks = Path(f"/proc/{api.pid}/task")
    bodies = [stage.body() for _ in range(20)]
    with stage.held(), ThreadPoolExecutor(20) as threads:
        for _ in range(2):
            began = time.monotonic()
            assert set(threads.map(stage.post, bodies)) == {503}
            assert time.monotonic() - began < 15
        assert len(list(tasks.iterdir())) < 200
    healed = time.monotonic()
    for body in bodies:
        stage.deliver(body)
    assert stage.settled(21) <= bound(10)  # twenty runs, one after the other on a slow machine
    account.recovered(time.monotonic() - healed)
