"""The source types that are built: one file each, and this list.

Looked into by the door (`service.web.hooks`), by `service.flow.receive` and by `triggers.sourcefile`. A new type is a
new file and a line here.
"""

from collections.abc import Mapping

from triggers.source import SourceType
from triggers.sources import alertmanager, git, github, gitlab, manual, minio, mlflow

SOURCES: Mapping[str, SourceType] = {
    "minio": minio.TYPE,
    "github": github.TYPE,
    "gitlab": gitlab.TYPE,
    "git": git.TYPE,
    "alertmanager": alertmanager.TYPE,
    "mlflow": mlflow.TYPE,
    "manual": manual.TYPE,
}
