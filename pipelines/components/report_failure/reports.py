"""The reports that a run's steps have left under its prefix. Called by failure.py."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipelines.storage import download, objects_below


def read_reports(report_uri: str) -> dict[str, dict[str, Any]]:
    """Every report right under `s3://bucket/prefix` or `file:///folder`, by the step's name.

    What is no JSON object is no report. A store that cannot be read is a PipelineError.
    """
    return {name: event for name, content in _documents(report_uri) if (event := _event(content))}


def _documents(report_uri: str) -> Iterator[tuple[str, bytes]]:
    if report_uri.startswith("file://"):
        for path in sorted(Path(unquote(urlsplit(report_uri).path)).glob("*.json")):
            yield path.stem, path.read_bytes()
        return
    prefix = report_uri.rstrip("/") + "/"
    with tempfile.TemporaryDirectory() as folder:
        for ref in objects_below(prefix, ".json"):
            name = f"s3://{ref.bucket}/{ref.key}".removeprefix(prefix)
            if "/" not in name:
                download(ref, path := Path(folder, "report"))
                yield name.removesuffix(".json"), path.read_bytes()


def _event(content: bytes) -> dict[str, Any]:
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) and "eventType" in event else {}
