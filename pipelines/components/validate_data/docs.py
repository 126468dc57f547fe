"""What a suite said → Great Expectations' own data docs, as one page that reads without the net. Called by validate.py.

GE's page takes its styles, icons and scripts from a dozen addresses on the net and shows when it was made. So its
sections are rendered by GE, and stand here in a page of ours.
"""

from typing import Any

from great_expectations import __version__ as ge_version
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaSectionView

from pipelines.components.validate_data.outcome import Outcome
from pipelines.page import page, table

STYLE = """
.ge-section { margin-top: 20px; }
.row { display: block; }
.alert h5 { font-size: 17px; margin: 20px 0 6px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
.badge { font: 13px/1.4 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; background: var(--panel);
  border: 1px solid var(--line); border-radius: 4px; padding: 0 4px; }
.fas { font-style: normal; font-weight: 700; }
.fa-check-circle::before { content: "\\2713"; color: var(--good); }
.fa-times::before { content: "\\2717"; color: var(--bad); }
.fa-exclamation-triangle::before { content: "!"; color: var(--bad); }
.text-danger { color: var(--bad); font-weight: 600; }
.popover, .cooltip .top, button, .collapse, [data-toggle="collapse"] { display: none; }
main > table td:first-child { width: 260px; color: var(--faint); }
.ge-section td:first-child, .ge-section th:first-child { width: 70px; }
.ge-section td:nth-child(3), .ge-section th:nth-child(3) { width: 190px; }
"""


def page_of(outcome: Outcome, suite: str) -> str:
    """The page of a suite that was held against data."""
    figures = outcome.figures
    failed = figures["failed"]
    verdict = f'<span class="bad">{failed} failed</span>' if failed else '<span class="good">all hold</span>'
    renderer: Any = ValidationResultsPageRenderer(run_info_at_end=True)
    sections = renderer.render(outcome.result).sections
    view: Any = DefaultJinjaSectionView()
    view.env.filters["generate_html_element_uuid"] = str  # the same input gives the same bytes
    shown = [  # but for the first and the last, which are about the run itself
        view.render({"section": section.to_json_dict(), "section_loop": {"index": place}})
        for place, section in enumerate(sections[1:-1], 1)
    ]
    facts = [
        ("suite", suite), ("rows, training and test together", f"{outcome.rows:,}"),
        ("expectations", figures["expectations"]), ("Great Expectations", ge_version),
    ]  # fmt: skip
    title = f"Validation of training data: {outcome.result.suite_name}"
    return page(title, [f"<p>{verdict}</p>", table(["", ""], facts), *shown], STYLE)
