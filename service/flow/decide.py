"""Steps 2 and 3: a stored event meets the rules; each that matches gives one decision, and maybe one run.

Lookups are fetched before the transaction, the judgement (pure, quick) happens inside it, on the history that limits
depend on. Rules are apart: one whose lookup does not answer waits alone. Called by `service.worker` (rung) and
`service.flow.sweep` (found).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from service import metrics
from service.failpoints import failpoint
from service.flow.admit import admit
from service.flow.answer import answer_to
from service.flow.causes import causes_of
from service.flow.look import look_up, plain
from service.flow.repeat import repeat, told_again
from service.flow.resolve import Resolved, resolve
from service.ledger import Ask, Judged
from service.lifecycle import State
from service.log import bound, logger
from service.ports import App, Defaults, InForce
from service.records import EventRecord, RunRecord
from triggers.event import Event
from triggers.reason import Reason
from triggers.rules.decision import Decision, Facts, Outcome, lock_of, plan, run_key
from triggers.rules.decision import decide as judge
from triggers.rules.gate import History
from triggers.rules.match import Match, match
from triggers.rules.model import Candidate, Rule

PAUSED_AGAIN = timedelta(seconds=30)  #: how often a paused rule's events ask whether it still is


def decide(app: App, event_id: str) -> None:
    """Take the event if it is due and free, and decide it for every rule."""
    taken = app.claim()
    item = app.ledger.events.claim(event_id, taken)
    if item is None:
        return
    failpoint("event.claimed")
    with bound(event_id=event_id):
        in_force = app.rules.now()
        causes = causes_of(app.ledger, item)
        asks = [_ask(app, in_force, rule, item, causes) for rule in matching(in_force, item)]
        judged = app.ledger.decisions.settle(item, asks, holder=taken.holder, now=app.clock.now())
        if judged is None:
            logger.warning("claim_lost", step="decide")
            return
        failpoint("event.decided")
        if not judged:
            logger.info("event_unmatched", type=item.event.type)
        _tell(app, judged)


def decide_again(app: App, decision_id: str) -> None:
    """Take a waiting decision if it is due and free, and ask its rule once more."""
    taken = app.claim()
    decided = app.ledger.decisions.claim(decision_id, taken)
    if decided is None or (item := app.ledger.events.get(decided.event_id)) is None:
        return
    with bound(event_id=item.id, rule=decided.rule):
        if decided.outcome != Outcome.WAIT:
            repeat(app, item, decided, taken)
            return
        in_force = app.rules.now()
        rule = in_force.rules.rules.get(decided.rule)
        causes = causes_of(app.ledger, item)
        again = decided.generation
        ask = _removed(in_force, decided.rule) if rule is None else _ask(app, in_force, rule, item, causes, again)
        judged = app.ledger.decisions.settle_again(decided, item, ask, holder=taken.holder, now=app.clock.now())
        if judged is not None:
            failpoint("decision.asked_again")
            _tell(app, [judged])


def matching(in_force: InForce, item: EventRecord) -> Sequence[Rule]:
    """The rules whose trigger matches; the one that a person fired stands for all."""
    if item.only_rule:
        fired = in_force.rules.rules.get(item.only_rule)
        return [fired] if fired else []
    candidate = _candidate(item)
    return [rule for rule in in_force.rules.rules.values() if isinstance(match(rule, candidate), Match)]


def _candidate(item: EventRecord, generation: int = 0) -> Candidate:
    asked = bool(item.only_rule) and not told_again(item)
    return Candidate(event=item.event, event_id=item.id, source=item.source, generation=generation, asked=asked)


def _ask(app: App, in_force: InForce, rule: Rule, item: EventRecord, causes: Sequence[str], generation: int = 0) -> Ask:
    """Fetch what the rule needs; what is left is pure."""
    candidate = _candidate(item, generation)
    found = look_up(app, plan(rule, candidate))
    resolved = resolve(app, in_force.sources, rule, candidate)
    report_uri = f"{app.reports}/{run_key(rule.name, item.id, candidate.generation)}"
    first = _first_decided_at(app, rule, candidate)

    def judged(history: History) -> Judged:
        now = app.clock.now()
        inputs = resolved.pipeline.inputs if isinstance(resolved, Resolved) else resolved
        facts = Facts(
            lookups=found, history=history, inputs=inputs, report_uri=report_uri, now=now, first_decided_at=first
        )
        made = judge(rule, candidate, facts)
        again = made.ask_again_at
        if made.outcome is Outcome.WAIT and again is None:
            again = now + PAUSED_AGAIN
        run, package = None, None
        if made.outcome is Outcome.RUN and isinstance(resolved, Resolved):
            defaults = app.backends[rule.run.backend].defaults
            run = _run(rule, candidate, made, resolved, defaults)
            run = replace(run, causes=[*causes, rule.name], report_uri=report_uri, created_at=now)
            package = resolved.content
        return Judged(
            rule=rule.name,
            outcome=made.outcome,
            reason=made.reason,
            detail=made.detail,
            rule_hash=rule.hash,
            rule_set=in_force.rules.hash,
            lookups=plain(found),
            ask_again_at=again,
            run=run,
            package=package,
            answer=answer_to(app, in_force, rule, item, run) if run else None,
        )

    limits = rule.limits
    return Ask(
        rule=rule.name,
        lock=lock_of(rule, candidate),
        causes=causes,
        judge=judged,
        budget=limits.budget.runs if limits.budget else 0,
        tries=limits.tries or 0,
    )


def _first_decided_at(app: App, rule: Rule, candidate: Candidate) -> datetime | None:
    """Of a replay: when the run was decided that it stands for. A run is written in its decision's transaction."""
    if candidate.generation == 0:
        return None
    first = app.ledger.runs.get(run_key(rule.name, candidate.event_id, 0))
    return first.created_at if first else None


def _run(rule: Rule, candidate: Candidate, made: Decision, resolved: Resolved, defaults: Defaults) -> RunRecord:
    """What the decision asks for, without its causes and its time."""
    waits, spec, pipeline, event = bool(made.lock), rule.run, resolved.pipeline, candidate.event
    again = candidate.generation
    return RunRecord(
        id="",
        run_key=made.run_key,
        decision_id="",
        event_id=candidate.event_id,
        rule=rule.name,
        generation=again,
        state=State.WAITING if waits else State.READY,
        reason=Reason.DECIDED,
        detail=f"for a slot of {made.lock}" if waits else "",
        backend=spec.backend,
        backend_id="",
        pipeline=pipeline.name,
        pipeline_version=pipeline.version,
        pipeline_digest=pipeline.digest,
        experiment=spec.experiment or defaults.experiment,
        params=made.params,
        secrets=made.secrets,
        reads=made.reads,
        writes=made.writes,
        causes=[],
        as_of=made.as_of,
        lock=made.lock,
        lock_max=made.lock_max,
        time_limit=(spec.time_limit or defaults.time_limit).total_seconds(),
        display_name=display_name(rule.name, event.subject, made.run_key),
        description=description(event, rule.name, candidate.event_id),
        report_uri="",
        created_at=event.time,
        subject=event.subject,
        caching=defaults.caching if spec.caching is None else spec.caching,
        service_account=resolved.service_account or spec.service_account or defaults.service_account,
        pipeline_root=spec.pipeline_root or defaults.pipeline_root,
        package=hashlib.sha256(resolved.content).hexdigest() if resolved.content is not None else "",
        upload=resolved.upload,
        document=made.document,
        retry_of=run_key(rule.name, candidate.event_id, again - 1) if again else "",
    )


def display_name(rule: str, subject: str, key: str) -> str:
    """Rule, the end of the subject, run key as its last word: in the 255 characters that KFP takes."""
    plain = _plain(subject)
    room = 255 - len(rule) - len(key) - 6
    short = plain if len(plain) <= room else "..." + plain[-(room - 3) :]
    return f"{rule} · {short} · {key}"


def description(event: Event, rule: str, event_id: str) -> str:
    """In one line: which event by which rule made the run, and where it came from."""
    link = str(event.data.get("generator_url") or "")
    if not link and event.data.get("sha"):
        link = f"{event.data.get('clone_url', '')} {event.data['sha']}"
    about = _plain(f"{event.type} {event.subject}")[:600]
    return f"{about} by rule {rule}, event {event_id}" + (f", {_plain(link)[:300]}" if link else "")


def _plain(text: str) -> str:
    """Without 4-byte and control characters, on which KFP's API and database fail."""
    return "".join(letter if letter.isprintable() and letter <= "\uffff" else "?" for letter in text)


def _removed(in_force: InForce, name: str) -> Ask:
    def judged(_history: History) -> Judged:
        return Judged(
            rule=name,
            outcome=Outcome.SKIP,
            reason=Reason.RULE_REMOVED,
            detail="",
            rule_hash="",
            rule_set=in_force.rules.hash,
        )

    return Ask(rule=name, lock="", causes=(), judge=judged)


def _tell(app: App, judged: Sequence[Judged]) -> None:
    """Log and count each decision; ring for what can start."""
    for one in judged:
        metrics.decisions.labels(rule=one.rule, outcome=one.outcome, reason=one.reason).inc()
        key = one.run.run_key if one.run else ""
        logger.info("decided", rule=one.rule, outcome=one.outcome, reason=one.reason, run_key=key)
        if one.reason is Reason.TRIES_EXHAUSTED:
            logger.error("rule_given_up", rule=one.rule, detail=one.detail)
    started = [one.run for one in judged if one.run is not None]
    for run in started:
        if run.state is State.READY:
            app.bell.ring("runs.submit", run.run_key)
    if any(run.state is State.WAITING for run in started):
        admit(app)
