"""Labels that came later + the predictions of before → how good each version of the model was. Called by component.py.

Memory: the labels, and of each version that they are about one prediction each; a file of predictions is read in
chunks, however many rows it has.
"""

from collections import Counter
from dataclasses import dataclass, field

from pipelines.components.score_labels.expected import expected_of
from pipelines.components.score_labels.labels import read_labels
from pipelines.components.score_labels.match import Matches
from pipelines.components.score_labels.measures import measure
from pipelines.components.score_labels.predictions import Predictions, find
from pipelines.errors import PipelineError
from pipelines.instant import parse_instant
from pipelines.report import Step, model_version, stored_object
from pipelines.storage import ObjectRef

VERSIONS = 20  #: of which quality is told: those with the most labels; the service reads no more of one report
FILES = 150  #: that stand in the lineage: those with the most labels


@dataclass(frozen=True)
class Asked:
    """Whose predictions: a file or a prefix, of a model, made after `since` ("" for all) and up to `as_of`."""

    predictions_uri: str
    model: str
    since: str
    as_of: str


@dataclass
class Found:
    """The figures of each version, and how many labels had a prediction."""

    matched: int = 0
    measures: dict[int, dict[str, float]] = field(default_factory=dict)


def score(labels_ref: ObjectRef, asked: Asked, step: Step) -> Found:
    """Reads, joins and measures; the observations stand in the step's facts. No label with a prediction is no error."""
    if not asked.model:
        raise PipelineError("model_name is empty: whose predictions are the labels about?")
    as_of = parse_instant(asked.as_of, "as_of")
    since = parse_instant(asked.since, "since") if asked.since else None
    labels, stored = read_labels(labels_ref, as_of)
    step.inputs.append(stored_object(labels_ref, stored, labels.rows))
    files, left = find(asked.predictions_uri, asked.model, (since, as_of))
    matches = Matches(labels)
    used = Counter({one: matches.add(one.version, one.chunks()) for one in files})
    found = Found(matches.matched())
    by_version = matches.by_version()
    for version in sorted(by_version, key=lambda number: (-len(by_version[number][0]), -number))[:VERSIONS]:
        found.measures[version] = measure(*by_version[version]) | expected_of(asked.model, version)
    _tell_lineage(used, asked.model, found, step)
    coverage = found.matched / max(len(labels), 1)
    step.facts |= {"labels": len(labels), "duplicates": labels.rows - labels.future - len(labels)}
    step.facts |= {"future": labels.future, "matched": found.matched, "coverage": coverage}
    step.facts["files"] = {"read": len(files), "used": sum(count > 0 for count in used.values()), "left": left}
    step.facts["observations"] = [
        {
            "kind": "quality",
            "model": asked.model,
            "version": version,
            "as_of": as_of.isoformat(),
            "subject": labels_ref.uri,
            "rows": int(figures["rows"]),
            "coverage": coverage,
            "figures": figures,
        }
        for version, figures in sorted(found.measures.items())
    ]
    return found


def _tell_lineage(used: Counter[Predictions], model: str, found: Found, step: Step) -> None:
    """The files that labels were about, and the versions that were judged."""
    about = [one for one, count in used.most_common(FILES) if count]
    step.inputs += [stored_object(one.ref, one.stored) for one in about]
    step.inputs += [model_version(model, version) for version in sorted(found.measures)]
