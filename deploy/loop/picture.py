"""The loop in one picture: accuracy by file, drift against its threshold, and what the service did about it.

`draw` makes a PNG, and an HTML page with the same panels as vector graphics and two tables; neither needs anything from
elsewhere. Called by `loop`, and by the tests with a chronicle of their own.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from chronicle import Chronicle, Week
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from verdict import Finding, stretches

INK, LOOP, ORACLE, NEVER, HOT, GRID = "#1f2430", "#0b6e99", "#8a8f98", "#c0562f", "#b3261e", "#e3e5e8"
LANES = {  # of the third panel: kind → lane, colour, marker
    "alert": (3, HOT, "v"),
    "held": (2, ORACLE, "v"),
    "retrain": (1, LOOP, "s"),
    "promoted": (0, "#2e7d32", "^"),
    "refused": (0, HOT, "X"),
}
LANE_NAMES = ("promoted ▲  refused ✕", "retraining", "alert held back", "alert that ran")


def draw(told: Chronicle, findings: Sequence[Finding], threshold: float, folder: Path) -> tuple[Path, Path]:
    """`loop.png` and `loop.html` in the folder."""
    plt.rcParams |= {"svg.hashsalt": "loop", "svg.fonttype": "path", "font.size": 9.5, "axes.titlesize": 11}
    figure = _figure(told, threshold)
    png, html = folder / "loop.png", folder / "loop.html"
    figure.savefig(png, dpi=130)
    vector = io.StringIO()
    figure.savefig(vector, format="svg", metadata={"Date": None})
    plt.close(figure)
    html.write_text(_page(told, findings, vector.getvalue()))
    return png, html


def _figure(told: Chronicle, threshold: float) -> Figure:
    figure, (quality, drift, did) = plt.subplots(
        3, 1, figsize=(11, 9), sharex=True, height_ratios=(4, 2.6, 1.9), layout="constrained"
    )
    _quality(quality, told)
    _drift(drift, told.weeks, threshold)
    _did(did, told)
    for axes in (quality, drift, did):
        _dress(axes, told)
    return figure


def _quality(axes: Axes, told: Chronicle) -> None:
    """The three accuracies; each version that takes over is named at its first file."""
    numbers = [week.number for week in told.weeks]
    axes.plot(numbers, told.compared.never, color=NEVER, marker=".", label="without the loop: never retrained")
    axes.plot(numbers, told.compared.weekly, color=ORACLE, ls="--", marker=".", label="oracle: retrained every week")
    axes.plot(numbers, [week.accuracy for week in told.weeks], color=LOOP, lw=2.2, marker="o", label="with the loop")
    before = 0
    for week in told.weeks:
        if week.version != before:
            at = (week.number, week.accuracy)
            axes.annotate(
                f"v{week.version}", at, (0, 9), textcoords="offset points", ha="center", color=LOOP, weight="bold"
            )
        before = week.version
    axes.set(ylabel="accuracy of the file", ylim=(0, 1.0))
    title = "A model that keeps itself up to date" if told.world.changes else "Nothing changes, and nothing is done"
    axes.set_title(f"{title}  (seed {told.world.seed}, {told.world.rows:,} people a week)", loc="left", weight="bold")
    axes.legend(loc="lower left", frameon=False)
    for name, first, last in stretches(told) if told.world.changes else ():
        axes.text((first + last) / 2, 0.965, name, ha="center", va="center", color=INK, style="italic")


def _drift(axes: Axes, weeks: Sequence[Week], threshold: float) -> None:
    """The largest PSI of each file; on a logarithmic axis, for a change of unit is a hundred times the threshold."""
    colours = [HOT if week.psi > threshold else LOOP for week in weeks]
    axes.bar([week.number for week in weeks], [week.psi for week in weeks], color=colours, width=0.62)
    axes.set_yscale("log")
    axes.set_ylim(0.003, max(30.0, 3 * max(week.psi for week in weeks)))
    axes.axhline(threshold, color=INK, lw=1, ls=":")
    axes.text(0.995, threshold * 1.15, f"alert above {threshold:g}", ha="right", transform=axes.get_yaxis_transform())
    axes.set_ylabel("largest PSI (log)")
    axes.set_title("Drift from the training of the version in use, by the feature that moved most", loc="left")
    for before, week in zip([None, *weeks], weeks, strict=False):
        named = before is not None and before.psi > threshold and before.feature == week.feature
        if week.psi > threshold and not named:
            at = (week.number, week.psi)
            axes.annotate(week.feature, at, (0, 3), textcoords="offset points", ha="center", fontsize=8, color=HOT)


def _did(axes: Axes, told: Chronicle) -> None:
    """A lane for each kind; what happened after the same file stands side by side."""
    seen: dict[tuple[int, int], int] = {}
    for one in told.happenings:
        lane, colour, marker = LANES[one.kind]
        beside = seen.get((lane, one.week), 0)
        seen[lane, one.week] = beside + 1
        axes.scatter(one.week + 0.2 + 0.22 * beside, lane, color=colour, marker=marker, s=58, zorder=3)
    axes.set_yticks(range(len(LANE_NAMES)), LANE_NAMES)
    axes.set_ylim(-0.6, len(LANE_NAMES) - 0.4)
    axes.set_title("What the service did, after the file of that week", loc="left")
    axes.set_xlabel("week")


def _dress(axes: Axes, told: Chronicle) -> None:
    """What all panels share: weeks on the axis, a light grid, a line where the world changes."""
    axes.set_xlim(0.4, len(told.weeks) + 0.95)
    axes.set_xticks([week.number for week in told.weeks])
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for week in (told.world.unit_from, told.world.concept_from) if told.world.changes else ():
        axes.axvline(week - 0.5, color=INK, lw=1, alpha=0.35)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2430;background:#fff;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem} svg{width:100%;height:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums} th{text-align:left;font-weight:600}
td,th{padding:.25rem .7rem;border-bottom:1px solid #e3e5e8} td.n,th.n{text-align:right}
.good::before{content:"✓ ";color:#2e7d32} .bad::before{content:"✗ ";color:#b3261e} ul{list-style:none;padding:0}
tr.hot td{background:#fdf1ef} .quiet{color:#646a73}
"""


def _page(told: Chronicle, findings: Sequence[Finding], vector: str) -> str:
    bounds = "".join(f'<li class="{"good" if one.good else "bad"}">{escape(one.text)}</li>' for one in findings)
    weeks = "".join(_row(told, week) for week in told.weeks)
    did = "".join(
        f'<tr><td class="n">{one.week}</td><td>{escape(one.kind)}</td><td>{escape(one.text)}</td></tr>'
        for one in told.happenings
    )
    nothing = '<p class="quiet">Nothing: no alert fired.</p>'
    happened = f"<table><tr><th class=n>after week<th>what<th>which</tr>{did}</table>" if did else nothing
    graphic = re.sub(r"^.*?(?=<svg)", "", vector, flags=re.DOTALL)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>The loop</title><style>{STYLE}</style>'
        f"<h1>The loop, seed {told.world.seed}</h1>"
        f'<p class="quiet">{len(told.weeks)} files of {told.world.rows:,} people, {told.retrains} retrainings.</p>'
        f"<ul>{bounds}</ul>{graphic}<h2>What happened</h2>{happened}"
        "<h2>Files</h2><table><tr><th class=n>week<th class=n>model<th class=n>largest PSI<th>of<th class=n>accuracy"
        f"<th class=n>oracle<th class=n>never retrained</tr>{weeks}</table></html>\n"
    )


def _row(told: Chronicle, week: Week) -> str:
    at = week.number - 1
    figures = (week.accuracy, told.compared.weekly[at], told.compared.never[at])
    accuracies = "".join(f'<td class="n">{value:.3f}</td>' for value in figures)
    hot = ' class="hot"' if any(one.week == week.number and one.kind == "alert" for one in told.happenings) else ""
    return (
        f'<tr{hot}><td class="n">{week.number}</td><td class="n">v{week.version}</td><td class="n">{week.psi:.3f}</td>'
        f"<td>{escape(week.feature)}</td>{accuracies}</tr>"
    )
