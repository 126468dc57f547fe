"""`deploy/image/build`: which tool is called with what. The tools are stand-ins that say how they were called."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "deploy/image/build"
FILE = ["build", "--file", str(ROOT / "deploy/image/Dockerfile"), "--tag", "reg.example/steps:1"]


def build(tools: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [BUILD, "--tag", "reg.example/steps:1", *args]
    return subprocess.run(argv, env={"PATH": str(tools)}, capture_output=True, text=True, check=False, cwd=tools)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with a docker without its daemon, a podman and a buildah; and what they need of a shell."""
    for name in ("docker", "podman", "buildah"):
        tool = tmp_path / name
        answer = "exit 1" if name == "docker" else "exit 0"
        tool.write_text(
            f'#!/bin/sh\ncase $1 in info | --version) {answer} ;; esac\nprintf "%s\\n" {name} "$@" > called\n'
        )
        tool.chmod(0o755)
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    return tmp_path


def called(tools: Path) -> list[str]:
    return (tools / "called").read_text().splitlines()


def test_the_first_tool_that_answers_builds(tools: Path) -> None:
    assert "is built by podman" in build(tools).stdout
    assert called(tools) == ["podman", *FILE, str(ROOT)]


@pytest.mark.parametrize("tool", ["docker", "podman", "buildah"])
def test_a_named_tool_is_taken_with_the_base_image_and_its_own_options(tools: Path, tool: str) -> None:
    done = build(tools, "BASE_IMAGE=my/python:3.12", "--tool", tool, "A=b c", "--", "--network", "host")
    assert done.returncode == 0, done.stderr
    arguments = ["--build-arg", "BASE_IMAGE=my/python:3.12", "--build-arg", "A=b c", "--network", "host"]
    assert called(tools) == [tool, *FILE, *arguments, str(ROOT)]


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--tool"], 2, "--tool needs a value"),
        (["--tool", "kaniko"], 2, "there is no tool kaniko"),
        (["--tag", ""], 2, "say how the image is to be named"),
        (["latest"], 2, "unknown: latest"),
    ],
)
def test_what_is_missing_is_said(tools: Path, args: list[str], status: int, said: str) -> None:
    done = build(tools, *args)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not (tools / "called").exists()


def test_a_tool_that_does_not_answer_or_is_not_there_is_said(tools: Path) -> None:
    for name in ("podman", "buildah"):
        (tools / name).unlink()
    done = build(tools)
    assert (done.returncode, "there is docker, but it does not answer" in done.stderr) == (3, True)
    (tools / "docker").unlink()
    done = build(tools)
    assert (done.returncode, "there is no docker, podman or buildah: install one" in done.stderr) == (3, True)
    assert "there is no podman" in build(tools, "--tool", "podman").stderr


def test_the_image_is_made_of_what_the_pipelines_need_and_of_the_given_base() -> None:
    for file in (ROOT / "deploy/image/Dockerfile", ROOT / "Dockerfile"):
        lines = file.read_text().splitlines()
        assert next(line for line in lines if line.startswith("FROM")).startswith("FROM ${BASE_IMAGE}")
        copied = {
            word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]
        }
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        assert copied <= {line[1:] for line in ignored if line.startswith("!")}
        assert all((ROOT / one).exists() for one in copied)
