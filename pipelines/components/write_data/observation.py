"""What the shards counted of their features and scores → how far these have drifted from the model's training.

Called by write.py; the service reads the observation from the step's report, keeps it and shows it as gauges.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.drift import drift_of
from pipelines.instant import parse_instant
from pipelines.sketch import Sketch


def drift_observation(sketches: Sequence[Path], model: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The fact `observation` of all shards together; of a model without a reference, the fact `unobserved`."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sketches]
    if not documents or not all(documents):
        return {"unobserved": f"{model} has no reference.json: it was not registered by income-training, or before it"}
    whole = Sketch.read(documents[0])
    for document in documents[1:]:
        whole.merge(Sketch.read(document))
    name, _, version = model.removeprefix("models:/").rpartition("/")
    observation = {"kind": "drift", "model": name, "version": int(version)} | dict(about)
    observation |= {"as_of": parse_instant(str(about["as_of"]), "as_of").isoformat()}
    return {"observation": observation | {"columns": drift_of(whole), "figures": {}}}
