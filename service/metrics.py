"""Every metric's name and labels. A label's values are a closed list: never a key, a sha or an id.

Counters count what this process did; what must be right over all processes is a gauge, computed from the store when
/metrics is asked (`service.web.health`).
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A second series beside every counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped

deliveries = Counter("kfp_triggers_deliveries_total", "Deliveries that were stored or known", ["source", "outcome"])
refusals = Counter("kfp_triggers_refusals_total", "Deliveries that were not taken", ["source", "status"])
events = Counter("kfp_triggers_events_total", "Events that were new", ["source", "type", "verdict"])
decisions = Counter("kfp_triggers_decisions_total", "Decisions", ["rule", "outcome", "reason"])
submissions = Counter("kfp_triggers_submissions_total", "Answers of backends to submissions", ["backend", "outcome"])
adoption_seconds = Histogram(
    "kfp_triggers_adoption_seconds",
    "From an unclear submission to the run being found",
    ["backend"],
    buckets=(1, 2, 5, 10, 30, 60, 120, 180, 300, 600),
)
runs_ended = Counter("kfp_triggers_runs_ended_total", "Runs that ended", ["rule", "state"])
promotions = Counter("kfp_triggers_promotions_total", "Moves of aliases that ended, or wait for a person", ["state"])
answers = Counter("kfp_triggers_answers_total", "Tellings to code hosts of what came of a push", ["source", "outcome"])
swept = Counter("kfp_triggers_swept_total", "Rows that the sweep found and did itself", ["step"])
pruned = Counter("kfp_triggers_pruned_total", "Rows that retention removed; of `body`, emptied", ["table"])
dead = Counter("kfp_triggers_dead_letters_total", "What a person did to dead letters", ["kind", "action"])
buried = Counter("kfp_triggers_buried_total", "Events and decisions given up, for the service failed on them")
rings_lost = Counter("kfp_triggers_rings_lost_total", "Rings that the broker did not take")
ingest_seconds = Histogram(
    "kfp_triggers_ingest_seconds",
    "From the whole body to the answer",
    ["source"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
# Of the scans: set anew from the store at each look, as mostly a worker makes them.
scan_objects = Gauge("kfp_triggers_scan_objects", "Objects that the last scan of a bucket saw", ["source", "bucket"])
scan_found = Gauge("kfp_triggers_scan_found", "Events that only scans told of, in all", ["source", "bucket"])
scan_seconds = Gauge("kfp_triggers_scan_seconds", "What the last scan of a bucket took", ["source", "bucket"])
scan_ended_at = Gauge(
    "kfp_triggers_scan_ended_at_seconds", "When a bucket was last looked through", ["source", "bucket"]
)
scan_failing = Gauge("kfp_triggers_scan_failing", "1 while a bucket cannot be looked through", ["source", "bucket"])
rows = Gauge("kfp_triggers_rows", "Rows of the store by state", ["table", "state"])
# Not a counter: whoever finds one is mostly a worker, whom nobody asks for metrics.
doubles = Gauge("kfp_triggers_doubles", "Second runs that were found under one run key; must stay 0", ["backend"])
# Of a model: set anew from the store at each look. A model, a version and a feature are names that a run gives them, so
# `service.web.observed` bounds how many there are.
feature_drift = Gauge(
    "kfp_triggers_feature_drift",
    "How far a feature, or the predictions as (score), have moved from the training of the version in use",
    ["model", "version", "feature", "measure"],
)
scoring_coverage = Gauge(
    "kfp_triggers_scoring_coverage", "Share of the last scored file's rows that got a prediction", ["model", "version"]
)
scoring_rows = Gauge("kfp_triggers_scoring_rows", "Rows of the last scored file", ["model", "version"])
model_quality = Gauge(
    "kfp_triggers_model_quality", "How good predictions were, by labels that came", ["model", "version", "measure"]
)
observed_at = Gauge(
    "kfp_triggers_observed_at_seconds", "When drift or quality of a model was last recorded", ["model", "kind"]
)
rule_given_up = Gauge(
    "kfp_triggers_rule_given_up", "1 while an alert fires that all the tries of a rule did not end", ["rule"]
)
rules_loaded = Gauge("kfp_triggers_rules", "Rules in force")
rule_problems = Gauge("kfp_triggers_rule_problems", "Problems of the rule files as they are on disk; 0 when in force")
broker_up = Gauge("kfp_triggers_broker_up", "1 when the last ring was taken")
