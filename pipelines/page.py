"""One HTML page that needs nothing but itself: no script, no font, no picture from elsewhere. Light and dark.

Called by the steps that leave a report for people: validate_data, evaluate_model. KFP's page shows it in a sandboxed
frame, a bucket serves it as it is. The same input gives the same bytes: no time stands in it.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from pipelines.report import Dataset, Step
from pipelines.storage import parse_s3, write_document

WIDTH = 900  # pixels that the text is wide at most

STYLE = f"""
:root {{ color-scheme: light dark; --back: #ffffff; --text: #1c2530; --faint: #5d6b7a; --line: #dde3ea;
  --panel: #f5f7fa; --good: #17723a; --bad: #b3261e; --mark: #2563b8; }}
@media (prefers-color-scheme: dark) {{ :root {{ --back: #14181d; --text: #e4e9ee; --faint: #9aa7b4; --line: #303945;
  --panel: #1d232b; --good: #5cc486; --bad: #ff8a80; --mark: #7fb2f5; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; padding: 24px 16px 48px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: {WIDTH}px; margin: 0 auto; }}
h1 {{ font-size: 24px; line-height: 1.25; margin: 0 0 4px; }}
h2 {{ font-size: 17px; margin: 32px 0 8px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }}
p {{ margin: 6px 0; max-width: 75ch; }}
.faint {{ color: var(--faint); }}
.good {{ color: var(--good); }}
.bad {{ color: var(--bad); }}
table {{ border-collapse: collapse; width: 100%; margin: 8px 0; font-size: 14px; }}
th, td {{ text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }}
th {{ font-weight: 600; color: var(--faint); }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
td {{ overflow-wrap: anywhere; }}
td.number {{ overflow-wrap: normal; white-space: nowrap; }}
code {{ font: 13px/1.4 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }}
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole document: a title, and parts that are HTML already."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title>'
        f"<style>{STYLE}{style}</style></head>\n<body><main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: int | None = None) -> str:
    """A table of texts, which are escaped; the columns from `numbers` on are set to the right."""
    start = len(head) if numbers is None else numbers
    kinds = ["" if place < start else ' class="number"' for place in range(len(head))]
    top = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, head, strict=True))
    lines = (
        "".join(f"<td{kind}>{escape(str(cell))}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"


def publish(text: str, path: str, name: str, step: Step) -> str:
    """Writes a page as the step's artifact, and beside the run's reports under `name`; returns that address, or "".

    The copy can be opened without KFP's own store, and is there also when the step fails, of which a cluster keeps no
    artifact. The lineage names it.
    """
    Path(path).write_text(text, encoding="utf-8")
    if not step.report_uri:
        return ""
    uri = f"{step.report_uri.rstrip('/')}/{name}"
    write_document(uri, text.encode())
    if uri.startswith("s3://"):
        ref = parse_s3(uri)
        step.outputs.append(Dataset(f"s3://{ref.bucket}", ref.key))
    return uri
