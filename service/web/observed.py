"""What was observed of models, as gauges: the newest of each model, from the store, whenever /metrics is asked.

Bounds: the 50 models observed last, of 40 days; the version that is in use; 200 features that a run names. A model of
which nothing comes any more goes after those days, and so does an alert on it. Called by `service.web.health`.
"""

from datetime import timedelta

from service import metrics
from service.errors import ServiceError
from service.log import logger
from service.ports import App
from service.records import Observation

AT_MOST = 50
REMEMBERED = timedelta(days=40)  #: longer than a month, for who scores once in one
MEASURES = ("psi", "statistic", "missing", "rows")
ENOUGH = 200  #: rows that were counted; of fewer a PSI is mostly chance, and the drift of the file before stays told


def tell_observations(app: App) -> None:
    """Set the gauges from the store; without it they go."""
    since = app.clock.now() - REMEMBERED
    for gauge in (
        metrics.feature_drift, metrics.scoring_coverage, metrics.scoring_rows, metrics.model_quality,
        metrics.observed_at,
    ):  # fmt: skip
        gauge.clear()
    try:
        scorings = app.ledger.observations.latest("drift", since, AT_MOST)
        drifts = app.ledger.observations.latest("drift", since, AT_MOST, counted=ENOUGH)
        qualities = app.ledger.observations.latest("quality", since, AT_MOST)
        seen = app.ledger.observations.seen(since, AT_MOST)
    except ServiceError as error:
        logger.error("observations_not_told", detail=error.detail)
        return
    for one in scorings:
        metrics.scoring_coverage.labels(model=one.model, version=one.version).set(one.figures["coverage"])
        metrics.scoring_rows.labels(model=one.model, version=one.version).set(one.rows)
    for one in drifts:
        _tell_drift(one)
    for one in qualities:
        for measure, value in one.figures["measures"].items():
            metrics.model_quality.labels(model=one.model, version=one.version, measure=measure).set(value)
    for (model, kind), at in seen.items():
        metrics.observed_at.labels(model=model, kind=kind).set(at.timestamp())


def _tell_drift(one: Observation) -> None:
    for feature, figures in one.figures["columns"].items():
        for measure in MEASURES:
            labels = {"model": one.model, "version": one.version, "feature": feature, "measure": measure}
            metrics.feature_drift.labels(**labels).set(figures[measure])
