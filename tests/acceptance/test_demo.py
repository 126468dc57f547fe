"""`make demo`, whole: every story comes out, what it prints is true, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfpserver import kfp_stub

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "deploy" / "demo" / "demo.py")]


def processes_of(home: Path) -> list[str]:
    """Commands of live processes that name this home."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if (str(home) in command or f"KFP_TRIGGERS_HOME={home}" in environment) and int(folder.name) != os.getpid():
            found.append(command)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for what is left in /proc")
def test_the_demo_plays_every_story_and_leaves_nothing_running(tmp_path: Path) -> None:
    # As the README has it; its folder is made under TMPDIR.
    done = subprocess.run(
        ["make", "demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    for said in (
        "champion",
        "5000 requested rows → 5000 predictions",
        "the resolved notification started nothing",
        "every story came out",
        "models:/income-classifier/1",
        "/commit/",
    ):
        assert said in done.stdout, said
    assert processes_of(tmp_path) == []


def test_the_demo_plays_every_story_on_a_kfp_whose_pods_reach_its_parts(tmp_path: Path) -> None:
    """The stub is the API server; its pods are processes of this machine, which run the uploaded packages."""
    home = tmp_path / "demo"
    with kfp_stub(tmp_path, "--pending", "0", "--running", "86400") as stub:
        argv = [sys.executable, str(ROOT / "tests" / "kfppods.py"), stub.url, str(home), str(tmp_path / "pods")]
        with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as pods:
            try:
                done = demo(*DEMO, "--home", str(home), "--backend", "kfp", "--endpoint", stub.url, home=home)
            finally:
                pods.kill()
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        assert "5000 requested rows → 5000 predictions" in done.stdout
        assert "every story came out" in done.stdout
        assert set(stub.counts()["executed_keys"].values()) == {1}


def demo(*argv: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TMPDIR": str(home.parent)}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "There is no Kubeflow Pipelines to play on"),
        (("ENDPOINT=http://127.0.0.1:9",), "cannot be played on: reachable"),
    ],
)
def test_without_a_kfp_the_demo_says_so(tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    done = demo("make", "demo", "BACKEND=kfp", *argv, home=tmp_path / "demo")
    assert done.returncode != 0
    assert said in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for what is left in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_however_the_demo_is_ended_no_child_is_left(tmp_path: Path, how: signal.Signals) -> None:
    home = tmp_path / "demo"
    output = (tmp_path / "out.txt").open("w+")
    with subprocess.Popen([*DEMO, "--home", str(home)], stdout=output, stderr=output, start_new_session=True) as demo:
        deadline = time.monotonic() + 120
        while "mlflow is up" not in (tmp_path / "out.txt").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes_of(home)
        demo.send_signal(how)
        demo.wait(timeout=40)
    while processes_of(home) and time.monotonic() < deadline + 60:
        time.sleep(0.1)
    assert processes_of(home) == []
    output.close()
