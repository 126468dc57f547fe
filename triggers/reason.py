"""Every "why" the service can give: one closed list.

The word is what the log says, the label the metric carries, the value the row keeps, and the text is what `explain`
prints. Called by everything that says yes or no; nothing else may invent a reason.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event, a decision or a run is where it is."""

    text: str

    def __new__(cls, word: str, text: str = "") -> "Reason":
        member = str.__new__(cls, word)
        member._value_ = word
        member.text = text
        return member

    # An event that starts nothing.
    NO_RULE = "no_rule", "no rule is triggered by it"
    NOT_FOR_US = "not_for_us", "outside the buckets or repositories that the source lists"
    KNOWN_AND_IGNORED = "known_and_ignored", "the source knows this kind of message and ignores it on purpose"
    NOT_UNDERSTOOD = "not_understood", "authentic, but its body is not what this source documents"
    POISON = "poison", "the service failed on it time and again; its log says where"
    READ_AGAIN = "read_again", "it was read a second time, and understood: its events stand beside it"
    # Why a rule does not match an event.
    OTHER_SOURCE = "other_source", "the rule listens to another source"
    OTHER_TYPE = "other_type", "the rule waits for another type of event"
    FILTERED = "filtered", "a filter of the rule's trigger does not match"
    # A decision to run.
    MATCHED = "matched", "the rule matches and every requirement holds"
    REPLAYED = "replayed", "a person asked for it again"
    # A decision to wait.
    LOOKUP_UNAVAILABLE = "lookup_unavailable", "a system that the rule looks into does not answer; it is asked again"
    PIPELINE_UNAVAILABLE = "pipeline_unavailable", "the backend does not answer for the pipeline's inputs; asked again"
    COOLDOWN = "cooldown", "the rule ran less than its cooldown ago"
    BUSY = "busy", "every slot of the rule's lock is taken"
    BUDGET = "budget", "the rule has made as many runs as its budget allows for now"
    PAUSED = "paused", "the rule is paused; its events wait"
    # A decision to skip.
    OBSERVED = "observed", "the rule only observes: it decides and records, and runs nothing"
    REQUIREMENT = "requirement", "a requirement of the rule does not hold"
    RULE_ERROR = "rule_error", "an expression of the rule failed on this event"
    BAD_PARAMETER = "bad_parameter", "a computed parameter does not fit the pipeline's inputs"
    LOOKUP_FAILED = "lookup_failed", "a system that the rule looks into says that there is no such thing"
    PIPELINE_UNKNOWN = "pipeline_unknown", "the backend has no such pipeline"
    RESOLVED = "resolved", "the alert was resolved while the rule waited"
    TRIES_EXHAUSTED = "tries_exhausted", "the rule ran as often as it may and the alert fires on: a person has to look"
    LOOP = "loop", "the event was caused by a run of this very rule, or the chain of causes is too deep"
    RULE_REMOVED = "rule_removed", "the rule is no longer in the rule files"
    # A run's moves.
    DECIDED = "decided", "its decision asked for it"
    LOCK_GRANTED = "lock_granted", "a slot of its lock became free"
    SUBMITTING = "submitting", "its backend is being asked to start it"
    ACCEPTED = "accepted", "its backend has it"
    ADOPTED = "adopted", "its backend already had it: found again, not made twice"
    ABSENT = "absent", "its backend surely does not have it: it is sent again"
    BACKEND_BUSY = "backend_busy", "its backend takes no more at the moment"
    GIVEN_UP = "given_up", "its backend gave an unclear answer time and again, and never had it"
    BACKEND_REFUSED = "backend_refused", "its backend refuses it for good"
    OBSERVED_STATE = "observed_state", "its backend says so"
    CANCEL_ASKED = "cancel_asked", "a person cancelled it"
    TIME_LIMIT = "time_limit", "it ran longer than its time limit"
    NOT_ENDED = "not_ended", "its backend was told to end it long ago, and did not"
    RETRIED = "retried", "its backend was asked to take it up again"
    REVIVED = "revived", "its backend runs it again: it was retried there"
    INTERRUPTED = "interrupted", "its process ended without a result: the machine or the supervisor went away"
    VANISHED = "vanished", "its backend no longer knows it"
    DISCARDED = "discarded", "a person has put it away"
    # A promotion: what became of an alias.
    GATE_PASSED = "gate_passed", "the gate found the candidate better than the champion"
    GATE_REFUSED = "gate_refused", "the gate found the candidate no better than the champion"
    GATE_ASKS = "gate_asks", "the gate leaves it to a person"
    NEVER_PROMOTES = "never_promotes", "the pipeline only compares: its promotion is `never`"
    FIRST_VERSION = "first_version", "the model had no champion"
    BY_PERSON = "by_person", "a person asked for it"
    ROLLED_BACK = "rolled_back", "a person went back to an earlier version"
    APPROVED = "approved", "a person approved it"
    REJECTED = "rejected", "a person rejected it"
    ALIAS_ELSEWHERE = "alias_elsewhere", "the alias is no longer where it was when the move was decided"
    MOVE_UNDER_WAY = "move_under_way", "another move of the same alias is under way"
    REGISTRY_REFUSED = "registry_refused", "the registry refuses it for good"
    MOVED_OUTSIDE = "moved_outside", "somebody moved the alias in the registry itself"
