"""After step 6: the code host is told what came of a push, where the rule and the source say so.

A commit status when the run is submitted and when it ended; then one comment, found again by its marker. All of it may
be done twice and is the same: whoever is killed in the middle is followed by another who tells it again. A host that
does not answer holds up nothing and fails no run: it is asked again, and given up in the end with a word in the log.
Called by `service.duties` by the clock.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

from service import metrics
from service.errors import Permanent, ServiceError, Temporary
from service.failpoints import failpoint
from service.flow.answertext import comment, outcome
from service.ledger import Claim
from service.lifecycle import TERMINAL, State
from service.log import bound, logger
from service.ports import App, CommitState, CommitStatus, InForce
from service.records import Answer, AnswerState, EventRecord, Promotion, PromotionState, RunRecord
from triggers.rules.model import Rule
from triggers.sourcefile import Source

LIMIT = 50  #: answers in one pass; the next one takes the rest
TRIES = 12  #: for each thing that is told: some two hours
SLOWEST = 900.0  #: seconds between two tries
MOVING = timedelta(minutes=5)  #: after a run's end, in which the move of its model's alias is waited for

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_STATES = {State.SUCCEEDED: CommitState.SUCCESS, State.FAILED: CommitState.FAILURE, State.DEAD: CommitState.FAILURE}


def answer_to(app: App, in_force: InForce, rule: Rule, item: EventRecord, run: RunRecord) -> Answer | None:
    """Who is to be told of a run, written with it; None where rule or source do not want it. Called by `decide`."""
    source = in_force.sources.get(item.source)
    if rule.answer is None or source is None or not app.code.is_told(source):
        return None
    repository, sha = str(item.event.data.get("repository", "")), str(item.event.data.get("sha", ""))
    if repository not in getattr(source.config, "repositories", ()) or not _SHA.fullmatch(sha):
        return None  # what a person fired may name anything
    return Answer(
        run_key=run.run_key,
        source=source.name,
        repository=repository,
        sha=sha,
        status=rule.answer.status,
        comment=rule.answer.comment,
        created_at=run.created_at,
    )


def answer_due(app: App) -> None:
    """One pass over all that there is something to tell of."""
    for answer_id in app.ledger.answers.due(app.clock.now(), LIMIT):
        taken = app.claim()
        item = app.ledger.answers.claim(answer_id, taken)
        run = app.ledger.runs.get(item.run_key) if item is not None else None
        if item is not None and run is not None:
            with bound(event_id=run.event_id, rule=run.rule, run_key=run.run_key):
                _alone(app, item, run, taken)


def _alone(app: App, item: Answer, run: RunRecord, taken: Claim) -> None:
    """What goes wrong with one is no other's trouble; the end of its lease brings it back."""
    try:
        _answer(app, item, run, taken)
    except ServiceError as error:  # the store's
        logger.warning("answer_later", detail=error.detail)
    except Exception:
        logger.exception("answer_failed")


def _answer(app: App, item: Answer, run: RunRecord, taken: Claim) -> None:
    source = app.rules.now().sources.get(item.source)
    if source is None or not app.code.is_told(source):
        _give_up(app, item, taken, f"source {item.source} has no `answers` any more")
        return
    try:
        _tell(app, item, run, source, taken)
    except Temporary as error:
        _later(app, item, taken, error)
    except Permanent as error:
        _give_up(app, item, taken, error.detail)
    except Exception as error:  # an answer that nobody thought of: asked again like any other, and given up
        logger.exception("answer_failed")
        _later(app, item, taken, Temporary(f"it could not be told: {type(error).__name__}"))


def _tell(app: App, item: Answer, run: RunRecord, source: Source, taken: Claim) -> None:
    """What is new since it was told last."""
    now, holder = app.clock.now(), taken.holder
    if run.state not in TERMINAL:
        if item.status:
            told = CommitStatus(
                state=CommitState.PENDING, context=_context(run), description="submitted", link=app.link(run)
            )
            app.code.status(source, item.repository, item.sha, told)
        app.ledger.answers.told(item, "pending", holder=holder, due_at=now)
        return
    promotions = app.ledger.promotions.of_run(run.run_key)
    if _still_moves(promotions) and run.ended_at is not None and now - run.ended_at < MOVING:
        raise Temporary("its model's alias is being moved", delay=2)
    if item.status and item.told != "status":
        state = _STATES.get(run.state, CommitState.ERROR)
        told = CommitStatus(
            state=state, context=_context(run), description=outcome(run, promotions), link=app.link(run)
        )
        app.code.status(source, item.repository, item.sha, told)
        failpoint("answer.posted")
        app.ledger.answers.told(item, "status", holder=holder, due_at=now)
        metrics.answers.labels(source=item.source, outcome="told").inc()
        return
    if item.comment and not app.code.comment(source, item.repository, item.sha, _marker(run), comment(app, run)):
        logger.info("answer_without_comment", repository=item.repository)
    app.ledger.answers.end(item, AnswerState.DONE, "", holder=holder)
    failpoint("answer.ended")
    logger.info("answered", repository=item.repository, sha=item.sha)


def _still_moves(promotions: Sequence[Promotion]) -> bool:
    return any(one.state is PromotionState.MOVING for one in promotions)


def _context(run: RunRecord) -> str:
    """The status's name: one for each rule, so that what is told later replaces what was told before."""
    return f"kfp-triggers/{run.rule}"


def _marker(run: RunRecord) -> str:
    """The comment's first line, which no reader sees."""
    return f"<!-- kfp-triggers {run.run_key} -->"


def _later(app: App, item: Answer, taken: Claim, error: Temporary) -> None:
    if item.attempts >= TRIES:
        _give_up(app, item, taken, f"after {item.attempts} tries: {error.detail}")
        return
    seconds = max(error.delay, min(2.0**item.attempts, SLOWEST))
    logger.warning("answer_later", repository=item.repository, detail=error.detail)
    due_at = app.clock.now() + timedelta(seconds=seconds)
    app.ledger.answers.later(item, error.detail, holder=taken.holder, due_at=due_at)


def _give_up(app: App, item: Answer, taken: Claim, why: str) -> None:
    app.ledger.answers.end(item, AnswerState.GIVEN_UP, why, holder=taken.holder)
    metrics.answers.labels(source=item.source, outcome="given_up").inc()
    logger.error("answer_given_up", repository=item.repository, sha=item.sha, detail=why)
