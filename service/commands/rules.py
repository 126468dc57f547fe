"""`kfp-triggers rules`: are the files right, and what would they do with an event? Nothing is started."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.show import BAD, USAGE, AsJson, document, fail, fields, opened, say, settings, table, told

if TYPE_CHECKING:
    from service.rulebook import RuleBook
    from service.settings import Settings
    from triggers.rules.model import Candidate, RuleSet

app = typer.Typer(help="Are the rule files right, and what would they do with an event?", no_args_is_help=True)

Sources = Annotated[Path | None, typer.Option(help="The sources file; else sources.yaml in the home.")]


@app.command()
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Rule files; else those in rules/ of the home.")] = None,
    sources: Sources = None,
    as_json: AsJson = False,
) -> None:
    """Every problem with its place and remedy; exit 1 if there is one."""
    from triggers.yamlfile import Problems

    with told():
        found_settings = settings()
        try:
            book, texts = _book(found_settings, files, sources)
            senders, rules, warnings = book.check(texts)
            warnings = [*warnings, *([] if files else book.passed_over())]
        except Problems as error:
            if as_json:
                found = [vars(problem) for problem in error.problems]
                document({"ok": False, "problems": found, "warnings": [], "rules": [], "hash": ""})
                raise typer.Exit(BAD) from None
            raise
    if as_json:
        found = [vars(warning) for warning in warnings]
        document({"ok": True, "problems": [], "warnings": found, "rules": sorted(rules.rules), "hash": rules.hash})
        return
    for warning in warnings:
        say(f"warning: {warning}")
    print(f"{len(rules.rules)} rules on {len(senders)} sources are right")


@app.command()
def explain(
    event: Annotated[Path, typer.Argument(help="An event as `events show --json` prints it, or a body with --source.")],
    source: Annotated[str | None, typer.Option(help="Read the file as this source's sender would post it.")] = None,
    live: Annotated[bool, typer.Option(help="Look into the real systems instead of using samples.")] = False,
    files: Annotated[list[Path] | None, typer.Option("--rules", help="Rule files; else those in the home.")] = None,
    sources: Sources = None,
    as_json: AsJson = False,
) -> None:
    """What each rule makes of an event, and why not."""
    from service.errors import Refused
    from service.flow.explain import candidates, explain_offline

    try:
        body = event.read_bytes()
    except OSError as error:
        fail(f"cannot read {event}: {error.strerror}", USAGE)
    with told():
        book, texts = _book(settings(), files, sources)
        senders, rules, _ = book.check(texts)
        try:
            found = candidates(body, senders, source)
        except ValueError as error:
            raise Refused(f"{event}: {error}") from error
        entries = [(one, _live(rules, one) if live else explain_offline(rules, one, book.inputs)) for one in found]
    if as_json:
        document([{"type": one.event.type, "subject": one.event.subject, "rules": rules} for one, rules in entries])
    else:
        for one, explained in entries:
            _print(one, explained)


@app.command()
def show(
    rule: Annotated[str | None, typer.Argument(help="A rule; else all of them.")] = None, as_json: AsJson = False
) -> None:
    """The rules in force: when each ran last, how it went, and whether it has given up on an alert."""
    from service.flow.standing import standings

    with opened() as world:
        found = standings(world)
    if rule is not None and rule not in {one["rule"] for one in found}:
        fail(f"there is no rule {rule}; there is {', '.join(one['rule'] for one in found) or 'none'}", BAD)
    chosen = [one for one in found if rule in (None, one["rule"])]
    if as_json:
        document(chosen[0] if rule else {"items": chosen})
    elif rule:
        fields(chosen[0])
    else:
        columns = ("rule", "mode", "trigger", "last run", "last state", "given up since")
        table(columns, [tuple(one[key] for key in _COLUMNS) for one in chosen])


_COLUMNS = ("rule", "mode", "trigger", "last_run_at", "last_state", "given_up_since")


@app.command()
def schema() -> None:
    """The JSON Schema of a rule file, for editors."""
    from triggers.rules.grammar import json_schema

    print(json.dumps(json_schema(), indent=2))


def _live(rules: "RuleSet", candidate: "Candidate") -> list[dict[str, Any]]:
    from service.flow.explain import explain_live

    with opened() as world:
        return explain_live(rules, candidate, world)


def _book(found: "Settings", files: list[Path] | None, sources: Path | None) -> "tuple[RuleBook, dict[str, str]]":
    from service.errors import Refused
    from service.rulebook import read_text
    from service.wiring import rulebook

    book = rulebook(found)
    try:
        texts = book.files()
        if files:
            texts = {name: text for name, text in texts.items() if name == "sources.yaml"}
            texts |= {str(path): read_text(path, str(path)) for path in files}
        if sources:
            texts["sources.yaml"] = read_text(sources, str(sources))
    except OSError as error:
        raise Refused(f"cannot read {error.filename}: {error.strerror}") from error
    return book, texts


def _print(candidate: "Candidate", entries: list[dict[str, Any]]) -> None:
    say(f"{candidate.event.type} {candidate.event.subject}\n")
    rows = [
        (entry["rule"], "yes" if entry["matched"] else "no", entry.get("outcome", ""), entry["reason"], entry["detail"])
        for entry in entries
    ]
    table(("rule", "matches", "decision", "reason", "why"), rows)
    for entry in entries:
        if entry.get("params"):
            print(f"\n{entry['rule']} would pass")
            fields(entry["params"])
            if entry["writes"]:
                say(f"and write {', '.join(entry['writes'])}")
