"""An evaluation → the page that people read: figures, curves, slices, features. Called by evaluate.py.

No id and no row stands in it. Where a model is compared with the champion is compare_models' page.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

from pipelines.components.evaluate_model import plots
from pipelines.components.evaluate_model.quality import HIGH, LOW
from pipelines.page import page, table

if TYPE_CHECKING:
    from pipelines.components.evaluate_model.evaluate import Evaluation

STYLE = """
:root { --other: #b45309; }
@media (prefers-color-scheme: dark) { :root { --other: #f0a955; } }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 10px; margin: 16px 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; }
.tile b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 20px;
  margin-top: 24px; }
figure { margin: 0; }
figure svg { width: 100%; height: auto; }
.facts td:first-child { width: 160px; color: var(--faint); }
.matrix { max-width: 520px; }
.bar { background: var(--mark); height: 10px; border-radius: 2px; min-width: 1px; }
.bars td:last-child { width: 55%; vertical-align: middle; }
"""
NAMES = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "area under ROC",
    "average_precision": "average precision", "f1": f"F1 of {HIGH}", "log_loss": "log loss ↓", "brier": "Brier score ↓",
    "calibration_error": "calibration error ↓",
}  # fmt: skip


def document(found: "Evaluation", told: Mapping[str, str]) -> str:
    """The whole page; `told` has what the run knows beside the files, such as the model's name and its commit."""
    name = told.get("model") or "the model"
    share = float(found.truth.mean())
    facts = [(key, value) for key, value in {**told, **found.facts}.items() if value and key != "model"]
    tiles = (
        f'<div class="tile"><b>{found.figures[key]:.3f}</b><span>{escape(label)}</span></div>'
        for key, label in NAMES.items()
    )
    pictures = (
        plots.roc(found.quality),
        plots.precision_recall(found.quality, share),
        plots.calibration(found.quality),
        plots.scores(found.truth, found.probability),
    )
    body = [
        f'<div class="facts">{table(["", ""], facts)}</div>',
        f'<div class="tiles">{"".join(tiles)}</div>',
        f'<p class="faint">On the newest labels of the window, which the model has not seen; {share:.1%} of them are '
        f"{escape(HIGH)}. A row is said to be {escape(HIGH)} above a probability of 0.5. ↓: smaller is better.</p>",
        f'<div class="plots">{"".join(pictures)}</div>',
        *_confusion(found),
        *_slices(found),
        *_importance(found),
    ]
    return page(f"Evaluation of {name}", body, STYLE)


def _confusion(found: "Evaluation") -> Iterator[str]:
    rows = [
        (f"is {name}", *(f"{count:,} ({count / max(sum(counts), 1):.1%})" for count in counts))
        for name, counts in zip((LOW, HIGH), found.quality.confusion, strict=True)
    ]
    yield "<h2>Confusion matrix</h2>"
    yield f'<div class="matrix">{table(["", f"said {LOW}", f"said {HIGH}"], rows, 1)}</div>'


def _slices(found: "Evaluation") -> Iterator[str]:
    if not found.slices:
        return
    rows = [
        (name, f"{int(one['rows'] or 0):,}", *(_figure(one[key]) for key in ("accuracy", "auc", "share", "said")))
        for name, one in found.slices.items()
    ]
    yield "<h2>Slices</h2>"
    yield table(["slice", "rows", "accuracy", "area under ROC", f"is {HIGH}", f"said {HIGH}"], rows, 1)
    yield (
        f'<p class="faint">“is” is the share that is {escape(HIGH)}, “said” the mean probability: where they differ, '
        "the model errs in one direction. “–”: one class only.</p>"
    )


def _importance(found: "Evaluation") -> Iterator[str]:
    if not found.importance:
        return
    most = max(*found.importance.values(), 1e-9)
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{loss:.4f}</td>'
        f'<td><div class="bar" style="width:{max(loss, 0) / most:.1%}"></div></td></tr>'
        for name, loss in found.importance.items()
    )
    yield "<h2>What the model looks at</h2>"
    yield f'<table class="bars"><tbody>{rows}</tbody></table>'
    yield (
        '<p class="faint">By how much the area under the ROC curve falls when that column alone is shuffled, on at '
        "most 2,000 rows. Columns that say the same share the loss.</p>"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
