"""A step that asks MLflow does not load Feast, though both are installed and Feast is a plugin of MLflow."""

import subprocess
import sys
from importlib.metadata import entry_points

from pipelines.mlflow_plugins import HEADERS

ASKED = """
import sys
from pipelines.registry_errors import registry
for _ in range(2):
    with registry("models:/m/1"):
        from mlflow.tracking.request_header.registry import resolve_request_headers
        assert "User-Agent" in resolve_request_headers()
print("feast" in sys.modules)
"""


def test_a_question_to_the_registry_leaves_feast_out() -> None:
    assert [one for one in entry_points(group=HEADERS) if one.value.startswith("feast.")], "Feast brings no plugin"
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        capture_output=True,
        text=True,
        check=False,
        env={"MLFLOW_TRACKING_URI": "http://x"},
    )
    assert done.stdout.strip() == "False", done.stderr
