"""How a KFP API server behaves where kfp-triggers has to rely on it, asked bare: no adapter is in between.

For a user: a KFP version that changed one of these says here which, and what of kfp-triggers it touches.
"""

import json
from typing import Any

import httpx
import pytest
from contract.packages import package, pipeline_spec
from contract.target import ENDED, LONG, OPEN, STATELESS, Json, Target, among, contains, equals, said, where, word

from service.kubeflow import KubeflowBackend

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def _an_experiment(open_run: str) -> None:
    """That bare runs go into."""


def test_a_run_has_no_request_id_so_the_same_again_is_a_second_one(target: Target) -> None:
    what = f"{LONG} {word()}"
    first, second = (target.post_run(what, pipeline_spec=pipeline_spec()) for _ in range(2))
    for answer in (first, second):
        told = (
            "this server refused a second run of the same name; kfp-triggers looks for doubles because it used not to"
        )
        assert answer.status_code == 200, f"{told}: {said(answer)}"
    assert first.json()["run_id"] != second.json()["run_id"], (
        "this server knows a run again by its name; kfp-triggers could rely on that in place of its search"
    )


def test_what_was_answered_is_in_the_next_list(target: Target) -> None:
    for _ in range(5):
        key = word()
        made = target.post_run(f"{LONG} {key}", pipeline_spec=pipeline_spec()).json()
        found = [one["run_id"] for one in target.runs(contains("display_name", key))]
        assert found == [made["run_id"]], (
            "this server's list is older than its answer; kfp-triggers relies on it (settle) to make no second run"
        )


def _listed(target: Target, text: str) -> httpx.Response:
    return target.ask("GET", "/runs", filter=text, namespace=target.settings.namespace)


def _filter(*predicates: Json) -> str:
    """Not encoded once more."""
    return json.dumps({"predicates": predicates})


@pytest.mark.parametrize("odd", ["a+b", "a%25b", "100%", "a\"b'c", "ä ✓", "a\\b"])
def test_a_filter_is_unescaped_once_more_than_its_query(target: Target, odd: str) -> None:
    what = f"{LONG} {odd} {word()}"
    target.post_run(what, pipeline_spec=pipeline_spec())
    predicate = equals("display_name", target.name(what))
    encoded = _listed(target, where(predicate))
    told = "this server does not unescape a filter once more; kfp-triggers relies on it to find any name"
    assert encoded.status_code == 200, f"{told}: {said(encoded)}"
    assert [one["display_name"] for one in encoded.json().get("runs", [])] == [target.name(what)], told
    if odd in {"a+b", "a%25b"}:
        plain = _listed(target, _filter(predicate))
        assert not plain.json().get("runs"), f"{told}: it matched a filter that was encoded once"


def test_a_lone_percent_in_a_filter_that_is_not_escaped_twice_is_refused(target: Target) -> None:
    answer = _listed(target, _filter(equals("display_name", "100% x")))
    assert answer.status_code == 400, f"this server reads a filter as it is, kfp-triggers escapes it: {said(answer)}"


def test_an_unknown_filter_key_is_refused(target: Target) -> None:
    answer = _listed(target, where(equals("no_such_field", "x")))
    told = "this server passed over a filter that it does not know; kfp-triggers relies on filters being kept to"
    assert answer.status_code == 400, f"{told}: {said(answer)}"


@pytest.mark.parametrize("predicates", [["EQUALS"], ["IS_SUBSTRING"], ["EQUALS", "IS_SUBSTRING"]], ids="+".join)
def test_a_filter_shows_what_it_says_and_nothing_else(target: Target, predicates: list[str]) -> None:
    key = word()
    name = target.name(f"{LONG} {key}")
    target.post_run(f"{LONG} {key}", pipeline_spec=pipeline_spec())
    target.post_run(f"{LONG} {word()}", pipeline_spec=pipeline_spec())
    values = {"EQUALS": name, "IS_SUBSTRING": key[2:]}
    found = target.runs(*({"operation": one, "key": "display_name", "string_value": values[one]} for one in predicates))
    assert [one["display_name"] for one in found] == [name], (
        "this server's filters show something else; kfp-triggers relies on them to find a run by its key"
    )


BY_STATE = "kfp-triggers relies on lists by state to watch all open runs in few calls"


def _key(target: Target, run_id: str) -> Json:
    """The predicate that only this run fits."""
    return contains("display_name", str(target.run(run_id)["display_name"]).split()[-1])


@pytest.mark.parametrize("what", [LONG, STATELESS])
def test_a_run_is_listed_by_its_state_and_without_one_as_unspecified(target: Target, what: str) -> None:
    """Only a run that nobody executes loses its state."""
    run_id = target.post_run(f"{what} {word()}", pipeline_spec=pipeline_spec()).json()["run_id"]
    target.begun(run_id)
    mine = _key(target, run_id)
    shown = [one["run_id"] for one in target.runs(among("state", *OPEN, *ENDED), mine)]
    assert shown == [run_id], f"this server has a state {target.run(run_id).get('state')} of its own; {BY_STATE}"
    assert target.runs(among("state", "PAUSED", "SKIPPED"), mine) == [], (
        f"this server lists other states too; {BY_STATE}"
    )
    open_ones = [one["run_id"] for one in target.runs(among("state", *OPEN), mine)]
    assert open_ones == [run_id] or target.run(run_id).get("state") in ENDED, BY_STATE


def test_a_list_of_what_has_not_ended_goes_on_over_pages(target: Target) -> None:
    """By NOT_EQUALS: of an IN filter KFP 2.17 refuses its own token, unless that comes without the filter."""
    key = word()
    ids = {target.post_run(f"{LONG} {key}", pipeline_spec=pipeline_spec()).json()["run_id"] for _ in range(3)}
    given = {"namespace": target.settings.namespace, "page_size": 2, "sort_by": "created_at asc"}
    given["filter"] = where(*(_is_not(state) for state in sorted(ENDED)), contains("display_name", key))
    found: set[str] = set()
    token = ""
    for _ in range(3):
        page = target.get("/runs", page_token=token, **given)
        found |= {one["run_id"] for one in page.get("runs", [])}
        if not (token := page.get("next_page_token", "")):
            break
    missed = {run_id: target.run(run_id).get("state") for run_id in ids - found}
    assert set(missed.values()) <= ENDED, f"this server's lists by state miss {missed}; {BY_STATE}"


def _is_not(state: str) -> Json:
    return {"operation": "NOT_EQUALS", "key": "state", "string_value": state}


def test_a_page_token_alone_goes_on_in_its_list(target: Target) -> None:
    key = word()
    for _ in range(3):
        target.post_run(f"{LONG} {key}", pipeline_spec=pipeline_spec())
    namespace, mine = target.settings.namespace, contains("display_name", key)
    given = {"filter": where(mine, among("state", *OPEN, *ENDED)), "sort_by": "created_at desc"}
    first = target.get("/runs", page_size=2, namespace=namespace, **given)
    second = target.get("/runs", page_size=2, namespace=namespace, page_token=first["next_page_token"])
    names = [one["display_name"].split()[-1] for one in first["runs"] + second.get("runs", [])]
    assert names == [key] * 3, f"this server's token does not hold its filter: {names}"


def test_what_has_not_ended_comes_last_when_sorted_by_the_end(target: Target, open_run: str) -> None:
    mine = contains("display_name", target.suffix)
    runs = target.runs(mine, sort_by="finished_at desc", page_size=200)
    ends = [one["finished_at"] for one in runs]
    told = (
        "this server does not sort runs by their end, the newest first; kfp-triggers relies on it to see ends at once"
    )
    assert ends == sorted(ends, reverse=True), told
    open_ends = {one["finished_at"] for one in runs if one.get("state") in {None, "PENDING", "RUNNING"}}
    assert open_ends <= {"1970-01-01T00:00:00Z"}, f"this server gives an open run an end: {open_ends}"


def test_an_end_comes_before_what_is_open(target: Target, ended: Json, open_run: str) -> None:
    runs = target.runs(contains("display_name", target.suffix), sort_by="finished_at desc", page_size=1)
    assert runs[0]["finished_at"] >= ended["finished_at"], "this server does not show the newest end first"


def test_a_parameter_that_the_pipeline_does_not_have_is_refused(target: Target) -> None:
    config = {"parameters": {"no such": "x"}}
    answer = target.post_run("refused", pipeline_spec=pipeline_spec(), runtime_config=config)
    told = "this server takes a parameter that the pipeline does not have; kfp-triggers relies on its refusal"
    assert answer.status_code == 400, f"{told}: {said(answer)}"
    assert target.runs(equals("display_name", target.name("refused"))) == []


def test_a_name_of_256_characters_makes_no_run(target: Target) -> None:
    """KFP 2 makes the Workflow before it finds out; the account does not exist, so that no pod of it starts."""
    name = target.name("").ljust(256, "x")
    body = {"display_name": name, "pipeline_spec": pipeline_spec(), "service_account": f"nobody-{target.suffix}"}
    answer = target.ask("POST", "/runs", body | {"experiment_id": target.experiment()})
    assert answer.status_code != 200, "this server takes longer names; kfp-triggers could, too"
    assert [one for one in target.mine("runs", "run_id") if len(one["display_name"]) > 255] == []


def test_a_page_token_is_bound_to_its_filter(target: Target) -> None:
    key = word()
    for _ in range(3):
        target.post_run(f"{LONG} {key}", pipeline_spec=pipeline_spec())
    namespace = target.settings.namespace
    mine = {"filter": where(contains("display_name", key)), "sort_by": "created_at asc", "namespace": namespace}
    first = target.get("/runs", page_size=2, **mine)
    token = first["next_page_token"]
    second = target.get("/runs", page_size=2, page_token=token, **mine)
    assert len({one["run_id"] for one in first["runs"] + second["runs"]}) == 3, (
        "this server's pages overlap or have gaps"
    )
    assert not second.get("next_page_token")
    for other in ({"filter": where(contains("display_name", "other"))}, {"sort_by": "created_at desc"}):
        answer = target.ask("GET", "/runs", page_size=2, page_token=token, **(mine | other))
        told = "this server goes on with a token under another filter; kfp-triggers relies on its refusal"
        assert answer.status_code == 400, f"{told}: {said(answer)}"


def test_pages_hold_two_hundred(target: Target) -> None:
    answer = target.ask("GET", "/runs", page_size=200, namespace=target.settings.namespace)
    assert answer.status_code == 200, f"this server has no pages of 200, of which kfp-triggers asks: {said(answer)}"


def test_an_unknown_run_is_a_404_that_names_it(target: Target) -> None:
    for method, path in (("GET", f"/runs/{NOBODY}"), ("POST", f"/runs/{NOBODY}:terminate")):
        answer = target.ask(method, path)
        told = "this server does not say of which run it does not know; kfp-triggers calls a run gone only by that"
        assert answer.status_code == 404, f"{told}: {said(answer)}"
        assert f"Run {NOBODY} not found" in answer.text, f"{told}: {said(answer)}"


def test_a_run_of_an_unknown_version_is_refused_by_name(target: Target) -> None:
    reference = {"pipeline_id": NOBODY, "pipeline_version_id": NOBODY}
    answer = target.post_run("nowhere", pipeline_version_reference=reference)
    told = "kfp-triggers relies on these words to look a version up again, and doctor to try whether runs may be made"
    assert answer.status_code >= 400, f"this server made a run of nothing; {told}"
    assert f"PipelineVersion {NOBODY} not found" in answer.text, f"this server says {said(answer)}; {told}"


def test_a_run_in_an_unknown_experiment_is_refused_by_name(target: Target) -> None:
    answer = target.post_run("nowhere", pipeline_spec=pipeline_spec(), experiment_id=NOBODY)
    told = "kfp-triggers relies on these words to make an experiment again that was deleted"
    assert answer.status_code == 404, f"this server says {said(answer)}; {told}"
    assert "xperiment" in answer.text, f"this server says {said(answer)}; {told}"


def test_what_there_is_already_is_a_conflict(target: Target, backend: KubeflowBackend) -> None:
    name, namespace = target.name("conflict"), target.settings.namespace
    body = {"display_name": name, **({"namespace": namespace} if namespace else {})}
    told = "kfp-triggers relies on it when two make the same at the same time"
    for what in ("/experiments", "/pipelines"):
        answers = [target.ask("POST", what, body) for _ in range(2)]
        assert [one.status_code for one in answers] == [200, 409], f"this server says {said(answers[1])}; {told}"
    pipeline_id = answers[0].json()["pipeline_id"]
    assert [_uploaded(target, pipeline_id).status_code for _ in range(2)] == [200, 409], told


def _uploaded(target: Target, pipeline_id: str) -> httpx.Response:
    url = f"{target.settings.endpoint.rstrip('/')}/apis/v2beta1/pipelines/upload_version"
    files = {"uploadfile": ("pipeline.yaml", package())}
    return target.http.post(url, params={"name": "v1", "pipelineid": pipeline_id}, files=files)


def test_an_ended_run_that_is_to_end_is_told_by_its_row(target: Target, ended: Json) -> None:
    answer = target.ask("POST", f"/runs/{ended['run_id']}:terminate")
    told = "kfp-triggers relies on these words to know that there is nothing to end"
    assert answer.status_code == 400, f"this server says {said(answer)}; {told}"
    assert "Row not found" in answer.text, f"this server says {said(answer)}; {told}"


def test_the_old_api_still_gives_the_workflow(target: Target, ended: Json) -> None:
    answer = target.http.get(f"{target.settings.endpoint.rstrip('/')}/apis/v1beta1/runs/{ended['run_id']}")
    told = "kfp-triggers relies on it for why a run failed"
    assert answer.status_code == 200, f"this server has no v1beta1 runs any more ({told}): {said(answer)}"
    found: Any = json.loads(answer.json()["pipeline_runtime"]["workflow_manifest"])
    assert found["status"]["nodes"], f"this server's Workflow has no nodes; {told}"
