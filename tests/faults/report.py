"""What `make faults` tells in the end: a table of fault, tries, lost, twice, seconds to recover."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROW = re.compile(r"test_(F\d\d)_(\w+)")


@dataclass
class Account:
    """What one test counts; whatever the oracle finds fails the test as well."""

    tries: int = 0
    seconds: list[float] = field(default_factory=list)

    def recovered(self, seconds: float) -> None:
        """One try: how long the work took to resume and end."""
        self.tries += 1
        self.seconds.append(seconds)


class Report:
    """A plug-in of pytest."""

    def __init__(self, seed: int, store: str) -> None:
        self.seed, self.store = seed, store
        self.file: Path | None = None
        self._accounts: dict[str, Account] = {}
        self._outcomes: dict[str, tuple[str, str]] = {}

    def of(self, node: str) -> Account:
        """The account of a test."""
        return self._accounts.setdefault(node, Account())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a failure what the oracle said."""
        if not ROW.search(report.nodeid):
            return
        if report.when == "call" or report.outcome != "passed":
            said = str(report.longrepr) if report.failed else ""
            self._outcomes[report.nodeid] = (report.outcome, said)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print it, and write it."""
        if not self._outcomes:
            return
        table = self.table()
        terminalreporter.write_line("\n" + table)
        if self.file is not None:
            self.file.write_text(table + "\n")

    def table(self) -> str:
        """Markdown; the tests of a fault's row together."""
        lines = [
            f"Faults on {self.store}, seed {self.seed}",
            "",
            "| fault | tries | lost | twice | seconds to recover | outcome |",
        ]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        rows: dict[str, list[str]] = {}
        for node in self._outcomes:
            found = ROW.search(node)
            assert found
            rows.setdefault(f"{found[1]} {found[2].replace('_', ' ')}", []).append(node)
        lines += [self._line(name, rows[name]) for name in sorted(rows)]
        return "\n".join(lines)

    def _line(self, name: str, nodes: list[str]) -> str:
        accounts = [self.of(node) for node in nodes]
        outcomes = [self._outcomes[node] for node in nodes]
        tries = sum(one.tries or 1 for one in accounts)
        seconds = [one for account in accounts for one in account.seconds]
        slowest = f"{max(seconds):.1f}" if seconds else ""
        bad = [said for outcome, said in outcomes if outcome == "failed"]
        lost, twice = (sum(f'"{word}": [\n' in said for said in bad) for word in ("lost", "twice"))
        outcome = "failed" if bad else "skipped" if any(one == "skipped" for one, _ in outcomes) else "passed"
        return f"| {name} | {tries} | {lost} | {twice} | {slowest} | {outcome} |"
