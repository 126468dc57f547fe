"""The command `kfp-triggers`. Nothing slow is imported here: `--help` must answer at once."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.commands import (
    backup,
    dead,
    doctor,
    drift,
    events,
    fire,
    forget,
    look,
    models,
    pipelines,
    processes,
    reconcile,
    rules,
    runs,
    start,
)

app = typer.Typer(
    name="kfp-triggers",
    help="Runs Kubeflow Pipelines when something happens: an object lands, code is pushed, an alert fires.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def everywhere(
    home: Annotated[
        Path | None, typer.Option(help="Folder of settings.toml, sources.yaml, rules/ and data/; else the current one.")
    ] = None,
) -> None:
    """What holds for every command."""
    if home is not None:
        os.environ["KFP_TRIGGERS_HOME"] = str(home.absolute())


app.command()(start.init)
app.command()(start.up)
app.command()(processes.api)
app.command()(processes.worker)
app.command()(processes.migrate)
app.command("settings")(look.show_settings)
app.add_typer(events.app, name="events")
app.add_typer(runs.app, name="runs")
app.add_typer(look.lineage_app, name="lineage")
app.add_typer(drift.app, name="drift")
app.command()(look.verify)
app.add_typer(dead.app, name="dead")
app.command()(forget.forget)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(rules.app, name="rules")
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(models.app, name="models")
app.command()(doctor.doctor)
app.command()(fire.fire)
app.command()(reconcile.reconcile)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
