"""Letting go of what is old, a little in each sweep: raw bodies, events with all that hangs on them, their keys.

Called by `service.flow.sweep`, under its lease. What is kept longer, and why, is `service.store.retention`'s.
"""

from collections.abc import Mapping
from datetime import timedelta

from service import metrics
from service.ledger import Keep
from service.log import logger
from service.ports import App

DAY = timedelta(days=1)
#: How late a sender of a type may tell of a thing again: its keys are kept at least so long after it arrived, whatever
#: the settings say. docs/operations.md has the same table for users.
REDELIVERS: Mapping[str, timedelta] = {
    # With `queue_dir` MinIO keeps what we did not take, and tells of it again after a crash, for as long as that lasts;
    # 100,000 events at most (internal/store/queuestore.go). A month is more than a bucket in use fills it in.
    "minio": 30 * DAY,
    # https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks: by hand, 3 days.
    "github": 3 * DAY,
    # Never by itself; by hand from its recent events: MAX_RECENT_DAYS in GitLab's app/models/hooks/web_hook_log.rb.
    "gitlab": 7 * DAY,
    # Our own hook's spool is sent by the next push or by cron, however late that is.
    "git": 30 * DAY,
    # An alert that fires is told of again after `repeat_interval`, which means nothing beyond `--data.retention`,
    # 120 h. Each telling renews the key.
    "alertmanager": 5 * DAY,
    # Tries a few times within seconds.
    "mlflow": DAY,
    "manual": timedelta(0),
}


def retain(app: App) -> None:
    """One short transaction of each kind; the next sweep goes on."""
    now, settings = app.clock.now(), app.retention
    store, limit, keep = app.ledger.retention, settings.batch, keep_of(app)
    counted = [
        store.empty_bodies(now, now - settings.bodies, limit),
        store.prune(now, now - settings.events, keep, limit),
        store.prune_deliveries(now - settings.events, keep, limit),
        store.prune_keys(now, limit),
    ]
    rows = {table: count for one in counted for table, count in one.items() if count}
    for table, count in rows.items():
        metrics.pruned.labels(table=table).inc(count)
    if rows:
        logger.info("pruned", rows=rows)


def keep_of(app: App) -> Keep:
    """By source: the settings' age of keys, or its senders' window where that is longer."""
    keys = app.retention.keys
    longest = max(keys, *REDELIVERS.values())
    windows = {
        name: max(keys, REDELIVERS.get(source.type, longest)) for name, source in app.rules.now().sources.items()
    }
    return Keep(of_source=windows, other=longest)
