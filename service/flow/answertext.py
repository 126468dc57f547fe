"""What a code host is told of an ended run, in a line and as Markdown.

Called by `service.flow.answer`. Names and figures come from the run's own reports and are not trusted: numbers are
written as numbers, and a text can be no markup, link or mention.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from service.lifecycle import State
from service.ports import App
from service.records import Promotion, PromotionState, RunRecord

MAX_ROWS = 40  #: of the table
_NAME = re.compile(r"[A-Za-z0-9_.@%() -]{1,60}")
_MARKUP = re.compile(r"([\\`*_\[\]<>|~!#&$])")
_COMMAND = re.compile(r"^(\s*)/")  #: at a line's start GitLab does what it says: `/tag v9`
_BECAME: Mapping[PromotionState, str] = {
    PromotionState.DONE: "promoted",
    PromotionState.REFUSED: "not promoted",
    PromotionState.ASKED: "waits for an approval",
    PromotionState.REJECTED: "rejected by a person",
    PromotionState.LOST: "not promoted: the champion was changed meanwhile",
    PromotionState.MOVING: "is being promoted",
}


def outcome(run: RunRecord, promotions: Sequence[Promotion]) -> str:
    """In a line: `accuracy 0.853 (+0.012 vs v3): promoted`, or how it failed. Not what it printed: see its page."""
    if run.state is not State.SUCCEEDED:
        where = f" in {run.failed_task}" if run.failed_task else ""
        return f"{run.state}{where}"
    if not promotions:
        return "succeeded"
    one = promotions[0]
    figures, became = one.figures, _BECAME[one.state]
    ours, theirs = figures.get("candidate_value"), figures.get("champion_value")
    if not figures.get("metric") or not _is_number(ours):
        return f"version {one.to_version}: {became}"
    against = f" ({ours - theirs:+.4g} vs v{one.from_version})" if _is_number(theirs) and one.from_version else ""
    return f"{figures['metric']} {ours:.4g}{against}: {became}"


def comment(app: App, run: RunRecord) -> str:
    """The whole comment below its marker."""
    promotions = app.ledger.promotions.of_run(run.run_key)
    lines = [f"**{_plain(run.rule)}**: {_plain(outcome(run, promotions))}", ""]
    for one in promotions:
        if one.detail:
            lines += [_plain(one.detail[:1000]), ""]
    if run.state is not State.SUCCEEDED and run.error:
        lines += [_plain(run.error.splitlines()[0][:300]), ""]
    rows = list(_rows(run, promotions))
    if rows:
        candidate, champion = _versions(promotions)
        lines += [f"| | {candidate} | {champion} | change |", "| --- | ---: | ---: | ---: |", *rows[:MAX_ROWS], ""]
    lines += [*_links(app, run, promotions), "", f"<sub>kfp-triggers, run {run.run_key}</sub>"]
    return "\n".join(lines)


def _versions(promotions: Sequence[Promotion]) -> tuple[str, str]:
    if not promotions:
        return "candidate", "champion"
    one = promotions[0]
    return f"candidate v{one.to_version}", f"champion v{one.from_version}" if one.from_version else "no champion"


def _rows(run: RunRecord, promotions: Sequence[Promotion]) -> Iterator[str]:
    """The figure that the gate compared, in all and on each slice; then what else the evaluation measured."""
    compared: set[str] = set()
    for one in promotions[:1]:
        metric = str(one.figures.get("metric") or "")
        compared.add(metric)
        yield _row(metric, one.figures.get("candidate_value"), one.figures.get("champion_value"))
        for part in one.figures.get("slices") or ():
            name = f"{metric} where {part.get('slice', '')}" + (" (worse)" if part.get("worse") else "")
            yield _row(name, part.get("candidate"), part.get("champion"))
    for name, value in sorted(_measured(run).items()):
        if name not in compared:
            yield _row(name, value, None)


def _measured(run: RunRecord) -> dict[str, Any]:
    reports = run.outputs.get("reports")
    told = (
        [one.get("metrics") for one in reports.values() if isinstance(one, dict)] if isinstance(reports, dict) else []
    )
    pairs = [pair for metrics in told if isinstance(metrics, dict) for pair in metrics.items()]
    return {name: value for name, value in pairs if _NAME.fullmatch(str(name)) and _is_number(value)}


def _row(name: str, ours: Any, theirs: Any) -> str:
    change = f"{ours - theirs:+.4g}" if _is_number(ours) and _is_number(theirs) else ""
    return f"| {_plain(name[:100])} | {_number(ours)} | {_number(theirs)} | {change} |"


def _links(app: App, run: RunRecord, promotions: Sequence[Promotion]) -> Iterator[str]:
    if link := app.link(run):
        yield f"- [the run]({link})"
    for one in promotions:
        if link := app.registry.link(one.model, one.to_version):
            yield f"- [{_plain(one.model)} version {one.to_version}]({link})"
    artifacts = run.outputs.get("artifacts")
    for name, one in artifacts.items() if isinstance(artifacts, dict) else ():
        uri = one.get("uri") if isinstance(one, dict) else None
        if str(name).endswith("/report") and isinstance(uri, str) and "://" in uri and not uri.startswith("file://"):
            yield f"- evaluation report: {_plain(uri[:500])}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if _is_number(value) else ""


def _plain(text: str) -> str:
    """Text that reads as it is: no markup, no line of its own, no command, and nobody is mentioned by it."""
    flat = "".join(letter if letter.isprintable() else " " for letter in text)
    still = _COMMAND.sub(r"\1\\/", _MARKUP.sub(r"\\\1", flat))
    return still.replace("://", "\\://").replace("www.", "www\\.").replace("@", "@\u200b")
