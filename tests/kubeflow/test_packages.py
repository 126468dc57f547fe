"""Compiled pipelines that the server does not have by name: a file below the home, and one of the pushed commit."""

import json
import subprocess
from pathlib import Path
from typing import Any

from kfpworld import SCORING, Place, decide, drop, runs, submitted, work

from service.flow.receive import receive
from triggers.event import Delivery

RULE = """
apiVersion: kfp-triggers/v1
rules:
  score:
    trigger: {source: uploads, event: object.created}
    run: {package: mine.yaml, params: {uri: "${event.object}"}, caching: false, pipeline_root: "s3://roots/x"}
  retrain:
    trigger: {source: code, event: git.push, branch: main}
    run: {package_from_commit: compiled/train.yaml, params: {uri: "${event.sha}"}}
"""
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: uploads.token}, buckets: [user-ids]}
  code:
    type: git
    auth: none
    repositories: {acme/income-model: {url: "URL", packages: {branches: [main], service_account: income-trainer}}}
"""


def stored(place: Place, path: str) -> Any:
    return place.stub.http.get(f"/apis/v2beta1/{path}").json()


def test_a_file_below_the_home_goes_along_with_the_run(place: Place) -> None:
    (place.home / "mine.yaml").write_text(json.dumps(SCORING))
    place.rules(RULE.partition("  retrain:")[0])
    with place.opened() as app:
        decide(app, drop(app, "a.csv"))
        work(app, lambda: runs(app) and submitted(app))
        run = stored(place, f"runs/{runs(app)[0].backend_id}")
    assert "pipeline_version_reference" not in run
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "scoring"
    assert run["pipeline_spec"]["root"]["dag"]["tasks"]["score"]["cachingOptions"] == {"enableCache": False}
    assert run["runtime_config"]["pipeline_root"] == "s3://roots/x"


def test_a_pushed_commits_package_becomes_a_version_named_by_it(place: Place, tmp_path: Path) -> None:
    repository = tmp_path / "model"
    (repository / "compiled").mkdir(parents=True)
    (repository / "compiled" / "train.yaml").write_text(json.dumps(SCORING))
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for argv in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "a pipeline"]):
        subprocess.run(["git", *argv], cwd=repository, check=True)
    asked = ["git", "rev-parse", "HEAD"]
    sha = subprocess.run(asked, cwd=repository, check=True, capture_output=True, text=True).stdout.strip()
    (place.home / "sources.yaml").write_text(SOURCES.replace("URL", repository.as_uri()))
    (place.home / "mine.yaml").write_text(json.dumps(SCORING))
    place.rules(RULE)
    update = {
        "ref": "refs/heads/main",
        "old": "0" * 40,
        "new": sha,
        "paths": ["model.py"],
        "message": "",
        "author": "Ada",
    }
    body = {"version": 1, "delivery": f"{sha[:20]}-main", "repository": "acme/income-model", "updates": [update]}
    with place.opened() as app:
        told = json.dumps(body | {"sent_at": "2026-11-21T07:00:00Z"}).encode()
        delivery = Delivery(source="code", headers={}, body=told, received_at=app.clock.now())
        decide(app, receive(app, delivery).event_ids[0])
        work(app, lambda: runs(app) and submitted(app))
        (run,) = runs(app)
        shown = stored(place, f"runs/{run.backend_id}")
    assert (run.pipeline, run.pipeline_version) == ("acme-income-model.scoring", sha)
    assert shown["service_account"] == "income-trainer"
    named = shown["pipeline_version_reference"]
    version = stored(place, f"pipelines/{named['pipeline_id']}/versions/{named['pipeline_version_id']}")
    assert version["display_name"] == sha
    assert stored(place, f"pipelines/{named['pipeline_id']}")["display_name"] == "acme-income-model.scoring"
    assert place.stub.counts()["executed_keys"] == {run.run_key: 1}
