"""What there is to register, from what the earlier steps left. Called by component.py."""

from pathlib import Path
from urllib.parse import urlsplit

from pipelines.components.prepare_data.about import about
from pipelines.components.register_model.registry import Candidate


def candidate(name: str, paths: tuple[str, str], figures: dict[str, float], told: dict[str, str]) -> Candidate:
    """A saved model and its training set, under a name, with the tags that MLflow keeps."""
    window = about(paths[1])
    parts = urlsplit(told["repository"])
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme else told["repository"]
    tags = told | {
        "repository": plain,
        "data_window_start": window["start"],
        "data_window_end": window["end"],
        "feature_service": window["features"],
    }
    return Candidate(Path(paths[0]), name, figures, tags)
