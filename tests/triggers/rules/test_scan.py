"""What the scanner finds in an expression's text."""

import pytest

from triggers.rules.scan import closing_brace, mentions


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("event.size > 0", {("event", "size")}),
        ("event . labels\n.team", {("event", "labels", "team")}),
        ("event['labels']['team']", {("event", "labels", "team")}),
        ("event[run.key]", {("event",), ("run", "key")}),
        ("event.key.split('/')[0].size()", {("event", "key")}),
        ("default(event.labels, 'event.nope', lookup.ids.rows)", {("event", "labels"), ("lookup", "ids", "rows")}),
        ("'event.a' + \"event.b\" + r'event.c' + '''event.d'''", set()),
        ("1 // event.a", set()),
        ("event.l.map(x, x.y + event.z)", {("event", "l"), ("event", "z")}),
        ("math.ceil(event.f)", {("event", "f")}),
        ("f(event.a).b.c(event.d)", {("event", "a"), ("event", "d")}),
        (".event.a", {("event", "a")}),
        ("'a' in event.l && !true", {("event", "l")}),
        ("1 in(event.l)", {("event", "l")}),
        ("has(event.a)", {("event", "a")}),
        ("{'a': event.b}.a", {("event", "b")}),
        ("-event.a+0x1F+1.5e3u", {("event", "a")}),
    ],
)
def test_paths_are_found_outside_strings_and_comments(source: str, paths: set[tuple[str, ...]]) -> None:
    assert set(mentions(source).paths) == paths


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a}", 1),
        ("{'a': 1}['a'] }", 14),
        ('"}"}', 3),
        ("r'\\'}", 4),
        ("'\\'}'}", 5),
        ("a", -1),
        ("(]}", -1),
        ("(}", -1),
    ],
)
def test_the_closing_brace_is_the_expressions_own(text: str, end: int) -> None:
    assert closing_brace(text, 0) == end
