"""What a rule says of a run is what the server stores of it: parameters by type, names, account, root, caching.

For a user: what `kfp-triggers runs show` says was sent is what the pipeline gets.
"""

import json
from typing import Any

import pytest
from contract.packages import caching_of, package, package_with_platform, platform_spec
from contract.target import LONG, Target, contains

from service.errors import Permanent
from service.kubeflow import KubeflowBackend
from service.packages import compiled
from service.ports import Package, Pipeline

PARAMS: dict[str, dict[str, Any]] = {
    "none": {},
    "string": {"s": "plain"},
    "odd strings": {"s": " a+b 100% a%25b \"q\" 'q' `x` $(id) <b> \\ \t tab\nnew line "},
    "unicode": {"s": "Größe ✓ 日本語 ελληνικά עברית \u200b"},
    "like other types": {"s": "5"},
    "ten kilobytes": {"s": "é" * 5_000},
    "whole numbers": {"i": -(2**53) + 1, "f": 3},
    "fractions": {"f": 0.1, "i": 0},
    "tiny and huge": {"f": 1.5e-300},
    "true": {"b": True},
    "false": {"b": False},
    "list": {"l": ["x", 1, 2.5, True, None, ["y", []], {}]},
    "struct": {"d": {"a b": {"c": [1, "x", None, {"d": None}]}, "e": None, "ü": "", "f": False, "": 0}},
    "empty": {"s": "", "l": [], "d": {}},
    "all": {"s": "s", "i": 1, "f": 2.5, "b": True, "l": [1], "d": {"k": "v"}},
}


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_arrive_as_they_were(
    target: Target, backend: KubeflowBackend, pipeline: Pipeline, name: str
) -> None:
    run = target.run(backend.create(target.job(pipeline, "short", params=PARAMS[name])))
    stored = run.get("runtime_config", {}).get("parameters", {})
    assert _typed(stored) == _typed(PARAMS[name]), "this server stored other parameters than were sent"


def _typed(value: Any) -> str:
    """True is 1 to Python; a server has doubles only, so that 3 and 3.0 are one."""
    return json.dumps(value, sort_keys=True, default=str).replace(".0,", ",").replace(".0}", "}")


def test_the_longest_name_and_description_are_kept(
    target: Target, backend: KubeflowBackend, pipeline: Pipeline
) -> None:
    job = target.job(pipeline)
    start = target.name(LONG) + " é日"
    name = start.ljust(255 - len(job.run_key) - 1, "x") + f" {job.run_key}"
    description = f"event {job.run_key}: ä+% \"'\n".ljust(255, "z")
    told = {"key": job.run_key, "display_name": name, "description": description}
    run_id = backend.create(target.job(pipeline, **told))
    run = target.run(run_id)
    assert (run["display_name"], len(name)) == (name, 255)
    assert run["description"] == description
    assert backend.find(job.run_key) == [run_id]


def test_one_character_more_is_refused_before_it_is_sent(target: Target, pipeline: Pipeline) -> None:
    job = target.job(pipeline)
    name = target.name(LONG).ljust(256 - len(job.run_key) - 1, "x") + f" {job.run_key}"
    with target.counted() as (backend, proxy):
        with pytest.raises(Permanent, match="256 characters"):
            backend.create(target.job(pipeline, key=job.run_key, display_name=name))
        assert proxy.asked == []


def test_account_and_root_are_kept(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    account, root = f"contract-{target.suffix}", f"s3://contract/{target.suffix}/a b"
    run_id = backend.create(target.job(pipeline, service_account=account, pipeline_root=root))
    run = target.run(run_id)
    assert run["service_account"] == account
    assert run["runtime_config"]["pipeline_root"] == root


def test_a_run_names_its_version(target: Target, backend: KubeflowBackend, pipeline: Pipeline, open_run: str) -> None:
    (version,) = backend.versions(pipeline.name)
    assert target.run(open_run)["pipeline_version_reference"]["pipeline_version_id"] == version.id


@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("content", [package(), package_with_platform()], ids=["alone", "with a platform spec"])
def test_caching_that_is_told_goes_with_the_spec(target: Target, content: bytes, caching: bool) -> None:
    backend, name = target.backend(), target.name(f"caching {len(content)}")
    backend.push(name, "v1", content)
    run = target.run(backend.create(target.job(backend.pipeline(f"{name}@v1"), "short", caching=caching)))
    assert caching_of(run["pipeline_spec"]) == [caching], "this server did not keep cachingOptions of a spec"
    if content == package_with_platform():  # the stub shows the pipeline's part alone
        assert run["pipeline_spec"]["platform_spec"] == platform_spec()


@pytest.mark.parametrize("content", [package(), package_with_platform()], ids=["alone", "with a platform spec"])
def test_a_package_that_the_server_does_not_know_goes_with_its_run(
    target: Target, backend: KubeflowBackend, content: bytes
) -> None:
    name, known = target.name("inline"), compiled(content, "the file")
    decided = Pipeline(reference="a file", name=name, version="1", digest=known.digest, inputs=known.inputs)
    job = target.job(decided, "short", params={"s": "x"}, package=Package(content=content, upload=False))
    run = target.run(backend.create(job))
    assert run["runtime_config"]["parameters"] == {"s": "x"}
    assert caching_of(run["pipeline_spec"]) == [True]
    assert not [one for one in target.mine("pipelines", "pipeline_id") if one["display_name"] == name]


def test_a_package_that_is_to_be_kept_becomes_a_version(target: Target, backend: KubeflowBackend) -> None:
    name, known = target.name("kept"), compiled(package(), "the file")
    decided = Pipeline(reference="a file", name=name, version="1", digest=known.digest, inputs=known.inputs)
    job = target.job(decided, "short", package=Package(content=package(), upload=True))
    run = target.run(backend.create(job))
    assert [one.version for one in backend.versions(name)] == ["1"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == backend.versions(name)[0].id


def test_a_run_that_is_refused_is_not_there(target: Target, backend: KubeflowBackend, pipeline: Pipeline) -> None:
    job = target.job(pipeline, params={"no such parameter": "x"})
    with pytest.raises(Permanent):
        backend.create(job)
    assert target.runs(contains("display_name", job.run_key)) == []
