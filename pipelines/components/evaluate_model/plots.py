"""The pictures of an evaluation, as SVG inside of the page. Called by document.py.

Colours are the page's own variables, so that a picture is light on a dark page; the letters are text, in the page's
font. The same figures give the same bytes.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pipelines.components.evaluate_model.quality import HIGH, LOW, Quality

# What is drawn in one of these is shown in the page's variable.
TEXT, FAINT, LINE, MARK, OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
SHOWN = {TEXT: "--text", FAINT: "--faint", LINE: "--line", MARK: "--mark", OTHER: "--other"}
LOOK: Any = {
    "svg.fonttype": "none", "font.family": ["sans-serif"], "font.size": 10, "text.color": TEXT,
    "axes.edgecolor": LINE, "axes.labelcolor": FAINT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": TEXT,
    "xtick.color": LINE, "ytick.color": LINE, "xtick.labelcolor": FAINT, "ytick.labelcolor": FAINT,
    "legend.frameon": False, "legend.fontsize": 9, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "lines.linewidth": 1.8,
}  # fmt: skip
SIZE = (4.5, 3.7)  # inches; the page scales it


def roc(quality: Quality) -> str:
    """True against false positives."""

    def draw(axes: Any) -> None:
        false, true, _ = quality.roc
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="guessing")
        axes.plot(false, true, color=MARK, label=f"area {quality.figures['auc']:.3f}")
        _unit(axes, "false positive rate", "true positive rate", "lower right")

    return _svg("roc", "ROC", draw)


def precision_recall(quality: Quality, share: float) -> str:
    """Precision against recall; the dotted line is the share of `>50K`, which guessing reaches."""

    def draw(axes: Any) -> None:
        recall, precision = quality.precision_recall
        axes.plot([0, 1], [share, share], color=FAINT, linewidth=1, linestyle=":", label="guessing")
        label = f"average precision {quality.figures['average_precision']:.3f}"
        axes.plot(recall, precision, color=MARK, label=label)
        _unit(axes, f"recall of {HIGH}", "precision", "lower left")

    return _svg("precision-recall", "Precision and recall", draw)


def calibration(quality: Quality) -> str:
    """What share came true of what was said with a probability."""

    def draw(axes: Any) -> None:
        said, true = quality.calibration
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", label="said = true")
        label = f"error {quality.figures['calibration_error']:.3f}"
        axes.plot(said, true, color=MARK, marker="o", markersize=4, label=label)
        _unit(axes, f"probability of {HIGH} said", "share that was true", "upper left")

    return _svg("calibration", "Calibration", draw)


def scores(truth: np.ndarray, probability: np.ndarray) -> str:
    """How the probabilities lie, for those who are `>50K` and those who are not."""

    def draw(axes: Any) -> None:
        edges = np.linspace(0, 1, 26)
        for part, color, name in ((~truth, OTHER, LOW), (truth, MARK, HIGH)):
            counts = np.histogram(probability[part], edges)[0] / max(part.sum(), 1)
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.45, label=f"is {name}")
            axes.stairs(counts, edges, color=color, linewidth=1.4)
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
        axes.set(xlabel=f"probability of {HIGH} said", ylabel="share of the class", xlim=(0, 1))
        axes.legend(loc="upper right")

    return _svg("scores", "Scores by class", draw)


def _unit(axes: Any, across: str, up: str, legend: str) -> None:
    axes.set(xlabel=across, ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc=legend)


def _svg(name: str, title: str, draw: Callable[[Any], None]) -> str:
    with mpl.rc_context({**LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        draw(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    picture = sink.getvalue()
    picture = picture[picture.index("<svg") :]
    for color, variable in SHOWN.items():
        picture = picture.replace(color, f"var({variable})")
    return f'<figure role="img" aria-label="{title}">{picture}</figure>'
