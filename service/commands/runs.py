"""`kfp-triggers runs`: what was started, how it ended, what it printed."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.show import BAD, AsJson, check_state, document, fail, fields, opened, parse_since, say, table

if TYPE_CHECKING:
    from service.ports import App
    from service.records import RunRecord

app = typer.Typer(help="What was started, how it ended, what it printed.", no_args_is_help=True)


@app.command("list")
def list_runs(
    since: Annotated[str | None, typer.Option(help="A time, or how long ago: 30m, 6h, 7d.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, ready, running, succeeded, failed, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    as_json: AsJson = False,
) -> None:
    """The newest first."""
    from service.lifecycle import State
    from service.records import Query
    from service.records import document as shown

    check_state(state, State)
    with opened() as world:
        found = world.ledger.runs.list(Query(since=parse_since(since), rule=rule, state=state, limit=limit))
    if as_json:
        document({"items": [shown(item) for item in found]})
        return
    rows = [
        (item.run_key, item.created_at, item.rule, f"{item.pipeline}@{item.pipeline_version}", item.state, item.error)
        for item in found
    ]
    table(("run", "created", "rule", "pipeline", "state", "error"), rows)


@app.command("show")
def show_run(run_key: str, as_json: AsJson = False) -> None:
    """One run with its history."""
    from service.records import document as shown

    with opened() as world:
        found = _run(world, run_key)
        moves = world.ledger.runs.transitions(run_key)
        doubles = [one for one in world.ledger.runs.doubles() if one.run_key == run_key]
        link = world.link(found)
    if as_json:
        more = {"link": link, "doubles": [shown(one) for one in doubles]}
        document(shown(found) | more | {"transitions": [shown(move) for move in moves]})
        return
    fields(shown(found) | {"link": link})
    for one in doubles:
        told = f"ended {one.cancelled_at:%H:%M:%S}" if one.cancelled_at else "is being ended"
        say(f"found twice: {one.backend} also has it as {one.backend_id}, which {told}")
    print()
    table(("at", "from", "to", "reason", "detail"), [(m.at, m.before, m.after, m.reason, m.detail) for m in moves])


@app.command()
def logs(run_key: str) -> None:
    """What the run printed so far."""
    from service.flow.mask import hidden

    with opened() as world:
        found = _run(world, run_key)
        backend = world.backends.get(found.backend)
        if backend is None or not found.backend_id:
            fail(f"run {run_key} is {found.state}: no backend has it yet, so there is no log", BAD)
        said = hidden(world, found, backend.log(found.backend_id))
    say(said, end="" if said.endswith("\n") or not said else "\n")


@app.command()
def cancel(run_key: str, as_json: AsJson = False) -> None:
    """Ask for a run's end; the service does it within seconds."""
    from service.lifecycle import TERMINAL
    from service.records import document as shown

    with opened() as world:
        before = _run(world, run_key)
        if before.state in TERMINAL:
            fail(f"run {run_key} has ended already: {before.state}", BAD)
        found = world.ledger.runs.ask_to_cancel(run_key, world.clock.now()) or before
    if as_json:
        document(shown(found))
    else:
        print(f"run {run_key} will be cancelled; see `kfp-triggers runs show {run_key}`")


@app.command()
def retry(
    run_key: str,
    new: Annotated[
        bool, typer.Option("--new", help="A new run of the same event; else the backend takes this one up again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a failed or cancelled run again: in its backend under the same id, or --new as the next generation."""
    from service.flow import retry as again
    from service.records import document as shown

    with opened(rings=True) as world:
        before = _run(world, run_key)
        made = again.anew(world, before) if new else None
        if made is None:
            again.retry(world, before)
        found = _run(world, run_key)
    if as_json:
        document(shown(found) if made is None else shown(made))
    elif made is None:
        print(f"run {run_key} runs again; see `kfp-triggers runs show {run_key}`")
    else:
        print(f"run {run_key} will be started anew, as generation {made.generation}; see `kfp-triggers runs list`")


def _run(world: "App", run_key: str) -> "RunRecord":
    found = world.ledger.runs.get(run_key)
    if found is None:
        fail(f"there is no run {run_key}; see `kfp-triggers runs list`", BAD)
    return found
