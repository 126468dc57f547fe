"""The server is there and is KFP, and `doctor` says so without leaving a trace.

For a user: `kfp-triggers doctor` can be trusted on this server, and may be run as often as one likes.
"""

from contract.target import Target, contains

from service.kubeflow import KubeflowBackend


def test_it_is_reachable_and_says_what_it_is(target: Target) -> None:
    health = target.get("/healthz")
    told = "this server's healthz says nothing of multi_user, commit_sha or tag_name; doctor knows KFP by these"
    assert {"multi_user", "commit_sha", "tag_name"} & set(health), f"{told}: {health}"
    print(f"{target.settings.endpoint}: {health}")


def test_doctor_finds_nothing_wrong_and_leaves_nothing_behind(
    target: Target, backend: KubeflowBackend, open_run: str
) -> None:
    findings = backend.check()
    wrong = [f"{one.what}: {one.detail}" for one in findings if not one.good]
    assert wrong == [], "doctor finds something wrong with this server"
    names = [one.what for one in findings]
    assert names == ["reachable", "version", "namespace", "may see runs", "may make runs"]
    assert findings[-1].detail == "yes", "there is an experiment, so whether runs may be made is to be tried"
    left = target.runs(contains("display_name", "kfp-triggers doctor"))
    assert left == [], "this server made doctor's run; kfp-triggers relies on it being refused for its version"
