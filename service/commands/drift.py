"""`kfp-triggers drift`: how far what is scored has moved from the training, and how good the predictions were."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.show import BAD, AsJson, document, fail, opened, say, table

if TYPE_CHECKING:
    from service.ledger import Observations
    from service.records import Observation

app = typer.Typer(help="How far what is scored has moved from the training.", no_args_is_help=True)
SOME, MUCH = 0.1, 0.25  #: the usual reading of a PSI
BLOCKS = "▁▂▃▄▅▆▇█"
NOTHING = (
    "nothing is observed yet: a run of income-batch-inference observes drift when its model was registered by "
    "income-training, a run of income-feedback observes quality; see docs/monitoring.md"
)


@app.callback()
def drift() -> None:
    """So that `show` is a word of its own, also as the only one."""


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A model's name; none: every model in one line.")] = "",
    version: Annotated[int | None, typer.Option(min=1, help="Only of this version.")] = None,
    last: Annotated[int, typer.Option(min=1, max=500, help="So many observations.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Every feature and the scores against the training, now and over the last files; quality once labels came."""
    with opened() as world:
        observations = world.ledger.observations
        if not model:
            _show_models(observations, as_json)
            return
        drifts = observations.history("drift", model, version, last)
        qualities = observations.history("quality", model, version, last)
    if not drifts and not qualities:
        of = model if version is None else f"version {version} of {model}"
        fail(f"nothing is observed of {of}; see `kfp-triggers drift show`", BAD)
    if as_json:
        _print_document(drifts, qualities)
        return
    if drifts:
        _print_drift(drifts)
    if qualities:
        _print_quality(qualities)


def _show_models(observations: "Observations", as_json: bool) -> None:
    """One line a model: what needs a look."""
    from datetime import UTC, datetime

    names = sorted({model for model, _ in observations.seen(datetime.fromtimestamp(0, UTC), 500)})
    drifts = {name: observations.history("drift", name, None, 1) for name in names}
    qualities = {name: observations.history("quality", name, None, 1) for name in names}
    if as_json:
        from service.records import document as shown

        found = (("drift", drifts), ("quality", qualities))
        newest = {name: {kind: [shown(one) for one in seen[name]] for kind, seen in found} for name in names}
        document({"items": [{"model": name} | kinds for name, kinds in newest.items()]})
        return
    if not names:
        say(NOTHING)
        return
    columns = ("model", "version", "as of", "largest PSI", "", "in", "coverage", "accuracy")
    table(columns, [_line(name, drifts[name], qualities[name]) for name in names])


def _line(model: str, drifts: Sequence["Observation"], qualities: Sequence["Observation"]) -> tuple[Any, ...]:
    newest = (drifts or qualities)[-1]
    columns = drifts[-1].figures["columns"] if drifts else {}
    worst = max(columns, key=lambda name: columns[name]["psi"], default="")
    psi = columns[worst]["psi"] if worst else None
    coverage = _percent(drifts[-1].figures["coverage"]) if drifts else ""
    accuracy = qualities[-1].figures["measures"].get("accuracy") if qualities else None
    return (model, newest.version, newest.as_of, _three(psi), _mark(psi), worst, coverage, _three(accuracy))


def _print_document(drifts: Sequence["Observation"], qualities: Sequence["Observation"]) -> None:
    from service.records import document as shown

    document({"drift": [shown(one) for one in drifts], "quality": [shown(one) for one in qualities]})


def _print_drift(drifts: Sequence["Observation"]) -> None:
    """The newest in figures, all of them as a line each; where a column was not observed stands a dot."""
    now = drifts[-1]
    coverage = [one.figures["coverage"] for one in drifts]
    say(f"{now.model} version {now.version}, as of {now.as_of:%Y-%m-%d %H:%M:%S}: {now.rows:,} rows")
    say(f"{now.subject}\n{_span(drifts)}; PSI: ! from {SOME}, !! above {MUCH}")
    say(f"coverage {_percent(coverage[-1])}  {spark(coverage, 0.0, 1.0)}\n")
    rows = []
    for name, column in now.figures["columns"].items():
        past = [one.figures["columns"].get(name, {}).get("psi") for one in drifts]
        figures = (column["test"], _three(column["statistic"]), _three(column["psi"]), _mark(column["psi"]))
        missing = (_percent(column["missing"]), _percent(column["reference_missing"]))
        rows.append((name, *figures, *missing, spark(past, 0.0, 2 * MUCH)))
    table(("feature", "test", "statistic", "PSI", "", "missing", "in training", f"0 to {2 * MUCH}"), rows)
    if left_out := now.figures["columns_left_out"]:
        say(f"{left_out} more columns, which moved less")


def _print_quality(qualities: Sequence["Observation"]) -> None:
    now = qualities[-1]
    say(f"\n{now.model} version {now.version}, labels as of {now.as_of:%Y-%m-%d %H:%M:%S}: {now.rows:,} rows")
    say(f"{_span(qualities)}\n")
    rows = []
    for name, value in now.figures["measures"].items():
        past = [one.figures["measures"].get(name) for one in qualities]
        known = [one for one in past if one is not None]
        low, high = min(known), max(known)
        rows.append((name, _three(value), _three(low), _three(high), spark(past, low, high)))
    table(("measure", "now", "least", "most", "least to most"), rows)


def _span(seen: Sequence["Observation"]) -> str:
    versions = sorted({one.version for one in seen})
    of = f"version {versions[0]}" if len(versions) == 1 else f"versions {versions[0]} to {versions[-1]}"
    return f"the last {len(seen)} observations, of {of}, the oldest on the left"


def spark(values: Sequence[float | None], low: float, high: float) -> str:
    """A line of blocks, one a value; what lies outside is cut off, what is not known a dot."""
    width = (high - low) or 1.0
    places = [None if one is None else int((one - low) / width * len(BLOCKS)) for one in values]
    return "".join("·" if place is None else BLOCKS[min(max(place, 0), len(BLOCKS) - 1)] for place in places)


def _mark(psi: float | None) -> str:
    return "" if psi is None or psi < SOME else "!" if psi <= MUCH else "!!"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _three(value: float | None) -> str:
    """Three digits behind the point, or none where the number is large."""
    return "" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
