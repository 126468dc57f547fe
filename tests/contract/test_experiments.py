"""The experiment that a rule names is made when it is absent, once, and again when somebody deletes it.

For a user: `experiment:` in a rule needs no preparation in KFP's pages.
"""

from concurrent.futures import ThreadPoolExecutor

from contract.target import Target, equals, where

from service.ports import Pipeline


def test_eight_runs_at_once_make_one_experiment(target: Target, pipeline: Pipeline) -> None:
    name = target.name("eight at once")
    with ThreadPoolExecutor(8) as pool:
        ids = list(
            pool.map(lambda _: target.backend().create(target.job(pipeline, "short", experiment=name)), range(8))
        )
    used = {target.run(run_id)["experiment_id"] for run_id in ids}
    assert len(set(ids)) == 8
    assert used == set(_named(target, name)), "this server has made one experiment more than once"
    assert len(used) == 1


def test_one_that_is_there_is_used(target: Target, pipeline: Pipeline) -> None:
    name = target.name("made by hand + 100%")
    body = {"display_name": name, **({"namespace": namespace} if (namespace := target.settings.namespace) else {})}
    made = target.ask("POST", "/experiments", body).json()["experiment_id"]
    run_id = target.backend().create(target.job(pipeline, "short", experiment=name))
    assert target.run(run_id)["experiment_id"] == made
    assert _named(target, name) == [made]


def test_one_that_was_deleted_is_made_again(target: Target, pipeline: Pipeline) -> None:
    name, backend = target.name("deleted"), target.backend()
    first = backend.create(target.job(pipeline, "short", experiment=name))
    (gone,) = _named(target, name)
    target.ask("DELETE", f"/runs/{first}")  # before its experiment: KFP deletes no run of an unknown one
    assert target.ask("DELETE", f"/experiments/{gone}").status_code == 200
    run_id = backend.create(target.job(pipeline, "short", experiment=name))
    assert [target.run(run_id)["experiment_id"]] == _named(target, name)


def _named(target: Target, name: str) -> list[str]:
    given = {"filter": where(equals("display_name", name)), "namespace": target.settings.namespace}
    return [one["experiment_id"] for one in target.get("/experiments", **given).get("experiments", [])]
