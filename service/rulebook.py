"""The sources and rules in force: read from the home, taken up as the files change, kept when a change is broken.

Fits `service.ports.Rules`. Every process has its own; all read the same files. Knows files and environment, so that
`triggers` need not.
"""

import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from service import metrics
from service.errors import Permanent, Temporary
from service.ledger import Leases
from service.log import logger
from service.packagefiles import of_home
from service.packages import compiled
from service.ports import Backend, Clock, InForce
from triggers.rules.load import load_rules
from triggers.rules.model import RuleSet
from triggers.rules.secretparams import Forbids, forbids_all
from triggers.schema import Inputs, SourceFacts
from triggers.signature import weakness
from triggers.sourcefile import Source, load_sources
from triggers.sources import SOURCES
from triggers.yamlfile import Problem, Problems

Files = dict[str, str]


class RuleBook:
    """The files of one home."""

    def __init__(
        self,
        home: Path,
        backends: Mapping[str, Backend],
        clock: Clock,
        *,
        every: float,
        kept: Leases | None = None,
        forbids: Forbids = forbids_all,
    ) -> None:
        """`forbids`: what the settings say of a secret for a pipeline."""
        self._forbids = forbids
        self._home, self._backends, self._clock, self._every, self._kept = home, backends, clock, every, kept
        self._lock = threading.Lock()
        self._seen: object = None
        self._looked = float("-inf")
        self._in_force = InForce(sources={}, rules=RuleSet(rules={}, hash=""), problems=(), loaded_at=clock.now())

    def now(self) -> InForce:
        """What is in force; looks at the files at most every so often."""
        with self._lock:
            if time.monotonic() - self._looked >= self._every:
                self._looked = time.monotonic()
                signature = _signature(self._paths())
                if signature != self._seen:
                    self._seen = signature
                    self._take_up()
            return self._in_force

    def secrets(self, source: str) -> Sequence[bytes]:
        """Every secret of a source; read at each delivery, so that a rotated file counts at once.

        One of several may be gone, as in the middle of a rotation; Temporary when none will do.
        """
        found: list[bytes] = []
        problem: Temporary | None = None
        for reference in self._in_force.sources[source].secrets:
            try:
                found.append(_secret(source, reference.env, self._home / reference.file))
            except Temporary as error:
                problem = error
        if problem is not None and not found:
            raise problem
        return found

    def check(self, files: Mapping[str, str]) -> tuple[Mapping[str, Source], RuleSet, Sequence[Problem]]:
        """These files (`sources.yaml` among them) as sources, rules and warnings, or Problems. Takes nothing up."""
        problems: list[Problem] = []
        sources: Mapping[str, Source] = {}
        warnings: list[Problem] = []
        rules = RuleSet(rules={}, hash="")
        try:
            if "sources.yaml" in files:
                sources = load_sources(files["sources.yaml"], "sources.yaml")
        except Problems as error:
            problems += error.problems
        texts = {name: text for name, text in files.items() if name != "sources.yaml"}
        try:
            facts = {name: _facts(source) for name, source in sources.items()}
            rules, warnings = load_rules(texts, facts, self.inputs, self._forbids)
        except Problems as error:
            # With broken sources every rule's source is unknown: saying so would hide what is to be mended.
            problems += [one for one in error.problems if not (problems and one.path.endswith(".source"))]
        if problems:
            raise Problems(problems)
        return sources, rules, warnings

    def files(self) -> Files:
        """The texts as they are on disk, by the name that problems carry; Problems where one is no text."""
        return {name: read_text(path, name) for path in self._paths() if (name := str(path.relative_to(self._home)))}

    def passed_over(self) -> list[Problem]:
        """Files that look like rules and are not read."""
        found = sorted((self._home / "rules").glob("*.yml"))
        return [
            Problem(f"rules/{path.name}", 1, "", "is not read: rule files end in .yaml, so rename it") for path in found
        ]

    def _paths(self) -> list[Path]:
        sources = self._home / "sources.yaml"
        return ([sources] if sources.exists() else []) + sorted((self._home / "rules").glob("*.yaml"))

    def _take_up(self) -> None:
        now = self._clock.now()
        try:
            files = self.files()
            sources, rules, warnings = self.check(files)
        except (OSError, Problems) as error:
            self._refuse([str(one) for one in error.problems] if isinstance(error, Problems) else [str(error)])
            return
        self._in_force = InForce(sources=sources, rules=rules, problems=(), loaded_at=now)
        metrics.rule_problems.set(0)
        metrics.rules_loaded.set(len(rules.rules))
        self._keep(rules.hash, files, now)
        self._try_secrets()
        for warning in [*warnings, *self.passed_over()]:
            logger.warning("rule_warning", warning=str(warning))
        logger.info("rules_in_force", hash=rules.hash[:12], rules=len(rules.rules), sources=len(sources))

    def _try_secrets(self) -> None:
        """Said at once, and not first by a delivery that is answered with 503."""
        for name in self._in_force.sources:
            try:
                self.secrets(name)
            except Temporary as error:
                logger.error("secret_unusable", source=name, detail=error.detail)

    def _keep(self, digest: str, files: Files, now: datetime) -> None:
        """For the record, and for a start with broken files; a store that is busy now is tried again."""
        if self._kept is None:
            return
        try:
            self._kept.keep_rules(digest, files, now)
        except Temporary as error:
            logger.warning("rules_not_kept", detail=error.detail)
            self._seen = None

    def _refuse(self, problems: Sequence[str]) -> None:
        """Keep what was in force, and look again each time: a package may come."""
        if not self._in_force.sources and self._kept is not None:
            self._recall(self._kept)
        if problems != self._in_force.problems:
            logger.error("rules_refused", problems=problems, rules=len(self._in_force.rules.rules))
        self._in_force = replace(self._in_force, problems=problems)
        self._seen = None
        metrics.rule_problems.set(len(problems))

    def _recall(self, kept: Leases) -> None:
        """Started on broken files: the last set that was in force, by any process, stays so."""
        try:
            sources, rules, _ = self.check(kept.last_rules())
        except (Problems, Temporary):
            return
        self._in_force = replace(self._in_force, sources=sources, rules=rules)
        logger.warning("rules_recalled", hash=rules.hash[:12], rules=len(rules.rules), sources=len(sources))

    def inputs(self, backend: str, reference: str) -> Inputs:
        """What a pipeline takes, None when its backend cannot be asked now, or a text when there is none."""
        if backend not in self._backends:
            return f"there is no backend `{backend}`; there is {', '.join(sorted(self._backends))}"
        kind, _, path = reference.partition(":")
        if kind == "commit":  # known when it is pushed
            return None
        try:
            if kind == "package":
                return compiled(of_home(self._home, path), path).inputs
            return self._backends[backend].pipeline(reference).inputs
        except Permanent as error:
            return error.detail
        except Temporary:
            return None


def _facts(source: Source) -> SourceFacts:
    return SourceFacts(type=source.type, events=SOURCES[source.type].types)


def _signature(paths: Sequence[Path]) -> object:
    """Changes when a file does; the content too, as an editor may keep size and time."""
    parts = []
    for path in paths:
        try:
            parts.append((str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
        except OSError as error:
            parts.append((str(path), error.strerror or ""))
    return parts


def read_text(path: Path, name: str) -> str:
    """The file's text; Problems, under the name that a person knows it by, when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Problems([Problem(name, 1, "", f"is not UTF-8 text: byte {error.start} cannot be read")]) from error


def _secret(source: str, env: str, file: Path) -> bytes:
    """The value behind a reference; Temporary, as a person may mend it while senders try again."""
    where, found = (env, os.environ.get(env, "").encode()) if env else (str(file), _content(source, file))
    if not found:
        raise Temporary(f"source {source}: {where} is {'not set' if env else 'empty'}", delay=10)
    if why := weakness(found):
        raise Temporary(f"source {source}: the secret in {where} {why}", delay=10)
    return found


def _content(source: str, file: Path) -> bytes:
    try:
        return file.read_bytes().strip()
    except OSError as error:
        raise Temporary(f"source {source}: cannot read {file}: {error.strerror}", delay=10) from error
