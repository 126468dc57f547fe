"""The verdict as a page for people. Called by compare.py."""

from collections.abc import Iterator
from html import escape

from pipelines.components.compare_models.figures import LEVEL
from pipelines.components.compare_models.rule import Rule
from pipelines.components.compare_models.verdict import Part, Verdict
from pipelines.page import page, table

WORDS = {
    "promote": ("good", "Promote", "The candidate passes. The service moves the alias."),
    "refuse": ("bad", "Refuse", "The champion stays."),
    "ask": ("", "Ask", "A person decides: kfp-triggers models approve, or reject."),
    "never": ("", "Never", "This rule only compares. The champion stays."),
    "first": ("good", "First", "There was no champion before."),
}


def account(verdict: Verdict, name: str, versions: tuple[int, int], rule: Rule) -> str:
    """One page: the word and its reasons, the figures, the slices, the rule."""
    return page(f"{name}: version {versions[0]} at the gate", _body(verdict, versions, rule))


def _body(verdict: Verdict, versions: tuple[int, int], rule: Rule) -> Iterator[str]:
    tone, word, meaning = WORDS[verdict.word]
    yield f'<p><strong class="{tone}">{word}.</strong> {meaning}</p>'
    yield "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons) + "</ul>"
    yield f"<h2>On {verdict.rows:,} rows of the latest labels</h2>"
    champion = f"version {versions[1]}, the champion" if versions[1] else "no champion"
    head = ("", f"version {versions[0]}, the candidate", champion, "better by")
    yield table(head, [(rule.metric, *_row(rule, verdict.candidate, verdict.champion))], numbers=1)
    if verdict.interval:
        yield (
            f'<p class="faint">Were other rows drawn from where these came from, it would be better by '
            f"{verdict.interval.low:+.4f} to {verdict.interval.high:+.4f} in {LEVEL:.0%} of the draws; by the margin "
            f"of {rule.margin:g} or more in {verdict.interval.share:.1%} of them (paired bootstrap).</p>"
        )
    if verdict.parts:
        yield "<h2>Slices</h2>"
        columns = ("slice", "rows", "candidate", "champion", "better by", "")
        yield table(columns, (_part(rule, part) for part in verdict.parts), numbers=1)
    yield "<h2>The rule</h2>"
    yield table(("parameter", "value"), _parameters(rule))


def _row(rule: Rule, ours: float | None, theirs: float | None) -> tuple[str, str, str]:
    if ours is None or theirs is None:
        return _number(ours), _number(theirs), ""
    return _number(ours), _number(theirs), f"{rule.figure.better_by(ours, theirs):+.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _part(rule: Rule, part: Part) -> tuple[str, ...]:
    said = "worse" if part.worse else "" if part.judged else "not judged: too few rows, or of one class"
    return part.name, f"{part.rows:,}", *_row(rule, part.candidate, part.champion), said


def _parameters(rule: Rule) -> list[tuple[str, str]]:
    less = ", less is better" if rule.figure.sign < 0 else ""
    return [
        ("metric", f"{rule.metric}{less}"),
        ("margin", f"better by at least {rule.margin:g}"),
        ("slices", f"{', '.join(rule.slices) or 'none'}; worse by {rule.slice_margin:g} at most"),
        ("confidence", f"{rule.confidence:.1%} of the draws" if rule.confidence else "none asked for"),
        ("promotion", rule.mode),
    ]
