"""The tables. Times are microseconds since 1970 UTC, bodies are bytes, ids are ULIDs, identity keys are unique.

Used by the other modules of this package and by the migrations. A table's rows are written by the one module that is
named after it; `run_transition` and `delivery` are only ever appended to.

What PostgreSQL would refuse for ever is written in another way, and in the same way on SQLite, so that both show the
same: NUL and halves of letters become U+FFFD, in text here and in JSON in `service.store.database`; NaN becomes null.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy import Text as AnyText

from triggers.payload import clean


class Text(TypeDecorator[str]):
    """Text that either database takes."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:  # noqa: ARG002 - as it is called
        """What is written, and what is compared with."""
        return None if value is None else clean(value)


metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
)


def _id(name: str = "id") -> Column[str]:
    return Column(name, String(26), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _claim() -> list[Column[int] | Column[str]]:
    """What makes a row a piece of work: when it is due, who holds it and until when, how often it was begun."""
    return [
        _time("due_at", nullable=True),
        _text("holder"),
        Column("lease_until", BigInteger, nullable=False, server_default="0"),
        Column("attempts", Integer, nullable=False, server_default="0"),
    ]


delivery = Table(
    "delivery",
    metadata,
    _id(),
    _text("source"),
    Column("transport_key", String(64), nullable=False),
    _time("received_at"),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("event_ids", JSON, nullable=False),
    Column("body_size", BigInteger),  # bytes of a body that was emptied; null while it is here
    _text("body_hash"),
    _time("emptied_at", nullable=True),
    UniqueConstraint("source", "transport_key"),
    Index(None, "received_at"),
)
Index(
    "ix_delivery_body",
    delivery.c.received_at,
    sqlite_where=text("emptied_at is null"),
    postgresql_where=text("emptied_at is null"),
)

event = Table(
    "event",
    metadata,
    _id(),
    Column("delivery_id", String(26), ForeignKey("delivery.id"), nullable=False),
    _text("source"),
    _text("type"),
    _text("subject"),
    _time("time"),
    _time("received_at"),
    Column("identity", String(64), nullable=False),
    _text("stream"),
    _text("position"),
    Column("data", JSON, nullable=False),
    _text("state"),
    _text("reason"),
    _text("detail"),
    Column("causes", JSON, nullable=False),
    _text("run_key"),
    _text("only_rule"),
    *_claim(),
    _time("retain_until", nullable=True),
    UniqueConstraint("source", "identity"),
    Index(None, "source", "stream", "id"),
    Index(None, "subject"),
    Index(None, "delivery_id"),
    Index(None, "received_at"),
)
Index(
    "ix_event_due", event.c.due_at, sqlite_where=text("due_at is not null"), postgresql_where=text("due_at is not null")
)

decision = Table(
    "decision",
    metadata,
    _id(),
    Column("event_id", String(26), ForeignKey("event.id"), nullable=False),
    _text("rule"),
    Column("generation", Integer, nullable=False),
    _text("outcome"),
    _text("reason"),
    _text("detail"),
    _text("rule_hash"),
    _text("rule_set"),
    Column("lookups", JSON, nullable=False),
    _text("run_key"),
    _time("created_at"),
    _time("decided_at"),
    *_claim(),
    UniqueConstraint("event_id", "rule", "generation"),
    Index(None, "rule", "id"),
)
Index(
    "ix_decision_due",
    decision.c.due_at,
    sqlite_where=text("due_at is not null"),
    postgresql_where=text("due_at is not null"),
)

run = Table(
    "run",
    metadata,
    _id(),
    Column("run_key", String(26), nullable=False, unique=True),
    Column("decision_id", String(26), ForeignKey("decision.id"), nullable=False),
    Column("event_id", String(26), ForeignKey("event.id"), nullable=False),
    _text("rule"),
    Column("generation", Integer, nullable=False),
    _text("state"),
    _text("reason"),
    _text("detail"),
    _text("backend"),
    _text("backend_id"),
    _text("pipeline"),
    _text("pipeline_version"),
    _text("pipeline_digest"),
    _text("experiment"),
    Column("params", JSON, nullable=False),
    Column("reads", JSON, nullable=False),
    Column("writes", JSON, nullable=False),
    Column("causes", JSON, nullable=False),
    _text("as_of"),
    _text("lock"),
    Column("lock_max", Integer, nullable=False),
    Column("time_limit", BigInteger, nullable=False),
    _text("display_name"),
    _text("description"),
    _text("report_uri"),
    _text("error"),
    _text("failed_task"),
    Column("outputs", JSON, nullable=False),
    _time("created_at"),
    _time("submitted_at", nullable=True),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
    _time("cancel_asked_at", nullable=True),
    _time("recorded_at", nullable=True),
    *_claim(),
    _text("subject"),
    Column("caching", Boolean),
    _text("service_account"),
    _text("pipeline_root"),
    _text("package"),
    Column("upload", Boolean, nullable=False, server_default=false()),
    Column("document", JSON, nullable=False, server_default="{}"),
    _text("retry_of"),
    _text("cancel_reason"),
    _time("cancel_sent_at", nullable=True),
    _time("cancel_told_at", nullable=True),
    Column("secrets", JSON, nullable=False, server_default="{}"),
    _text("secret_digest"),
    Index(None, "state"),
    Index(None, "rule", "subject"),
    Index(None, "rule", "id"),
    Index(None, "lock", "state"),
    Index(None, "event_id"),
    Index(None, "decision_id"),
)
Index("ix_run_due", run.c.due_at, sqlite_where=text("due_at is not null"), postgresql_where=text("due_at is not null"))

run_transition = Table(
    "run_transition",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("run_key", String(26), ForeignKey("run.run_key"), nullable=False, index=True),
    _time("at"),
    _text("before"),
    _text("after"),
    _text("reason"),
    _text("detail"),
)

lock = Table(
    "lock",
    metadata,
    Column("name", Text, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("run_key", String(26), ForeignKey("run.run_key"), nullable=False, unique=True),
    _time("taken_at"),
)

double = Table(
    "double",
    metadata,
    Column("backend", Text, primary_key=True),
    Column("backend_id", Text, primary_key=True),
    Column("run_key", String(26), ForeignKey("run.run_key"), nullable=False, index=True),
    _time("found_at"),
    _time("cancelled_at", nullable=True),
)

package = Table(
    "package",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    _time("kept_at"),
)

bucket = Table(
    "bucket",
    metadata,
    Column("name", Text, primary_key=True),
    _time("full_at"),
)

lineage_edge = Table(
    "lineage_edge",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    _text("relation"),
    Column("target", Text, nullable=False, index=True),
    _text("run_key"),
    Column("data", JSON, nullable=False),
    _time("at"),
    UniqueConstraint("source", "relation", "target", "run_key"),
    Index(None, "run_key"),
)

promotion = Table(
    "promotion",
    metadata,
    _id(),
    _text("model"),
    _text("alias"),
    Column("from_version", Integer, nullable=False, server_default="0"),
    Column("to_version", Integer, nullable=False),
    _text("action"),
    _text("state"),
    _text("reason"),
    _text("detail"),
    _text("by"),
    _text("run_key"),
    Column("figures", JSON, nullable=False),
    _time("created_at"),
    _time("ended_at", nullable=True),
    _text("holder"),
    Column("lease_until", BigInteger, nullable=False, server_default="0"),
    Index(None, "model", "id"),
    Index(None, "run_key"),
)
# One move of an alias at a time: what makes it compare-and-set.
Index(
    "ux_promotion_moving",
    promotion.c.model,
    promotion.c.alias,
    unique=True,
    sqlite_where=text("state = 'moving'"),
    postgresql_where=text("state = 'moving'"),
)

observation = Table(
    "observation",
    metadata,
    _id(),
    Column("run_key", String(26), ForeignKey("run.run_key"), nullable=False),
    _text("kind"),
    _text("model"),
    Column("version", Integer, nullable=False),
    _time("as_of"),
    _text("subject"),
    Column("rows", BigInteger, nullable=False),
    Column("figures", JSON, nullable=False),
    _time("created_at"),
    UniqueConstraint("run_key", "kind", "model", "version"),
    Index(None, "model", "kind", "as_of"),
)

answer = Table(
    "answer",
    metadata,
    _id(),
    Column("run_key", String(26), ForeignKey("run.run_key"), nullable=False, unique=True),
    _text("source"),
    _text("repository"),
    _text("sha"),
    Column("status", Boolean, nullable=False),
    Column("comment", Boolean, nullable=False),
    _text("state"),
    _text("told"),
    _text("detail"),
    _time("created_at"),
    *_claim(),
)
Index(
    "ix_answer_due",
    answer.c.due_at,
    sqlite_where=text("due_at is not null"),
    postgresql_where=text("due_at is not null"),
)

scan = Table(
    "scan",
    metadata,
    Column("source", Text, primary_key=True),
    Column("bucket", Text, primary_key=True),
    _time("since"),
    _time("mark"),
    _time("looked_at", nullable=True),
    _time("ended_at", nullable=True),
    Column("took", BigInteger, nullable=False, server_default="0"),  # microseconds
    Column("seen", BigInteger, nullable=False, server_default="0"),
    Column("found", BigInteger, nullable=False, server_default="0"),
    _text("problem"),
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    _text("holder"),
    _time("until"),
)

rule_set = Table(
    "rule_set",
    metadata,
    Column("hash", String(64), primary_key=True),
    _time("loaded_at"),
    Column("files", JSON, nullable=False),
)

# What is left of an event or a delivery that was pruned: by it a late redelivery is known.
tombstone = Table(
    "tombstone",
    metadata,
    Column("source", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("ref", String(26), nullable=False),
    Column("event_ids", JSON, nullable=False),
    _time("until"),
    Index(None, "until"),
)

# What a person did: to a dead letter, to personal data, to the store itself. Only ever appended to.
handling = Table(
    "handling",
    metadata,
    _id(),
    _text("what"),
    _text("key"),
    _text("action"),
    _text("by"),
    _text("why"),
    _time("at"),
    Index(None, "what", "key"),
)

salt = Table(
    "salt",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
