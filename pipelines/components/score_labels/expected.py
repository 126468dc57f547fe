"""What a version of the model reached on its hold-out, as register_model logged it: what quality is held against.

Called by score.py. MLflow is imported here alone, once there is something to compare: it takes longer than the rest.
"""

import logging
import os

from pipelines.errors import PipelineError

FIGURES = ("accuracy", "auc", "log_loss")
log = logging.getLogger(__name__)


def expected_of(model: str, version: int) -> dict[str, float]:
    """`expected_accuracy` and so on; nothing when the registry has no such figures, or cannot be asked.

    That ends nothing: the truth is worth telling without it, and the log says why it is missing.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        log.warning("no_expectation model=%s version=%s: MLFLOW_TRACKING_URI is not set", model, version)
        return {}
    from mlflow import MlflowClient  # noqa: PLC0415 - 2 s

    from pipelines.registry_errors import registry  # noqa: PLC0415 - imports MLflow

    try:
        with registry(f"models:/{model}/{version}"):
            client = MlflowClient()
            run_id = client.get_model_version(model, str(version)).run_id
            figures = client.get_run(run_id).data.metrics if run_id else {}
    except PipelineError as error:
        log.warning("no_expectation model=%s version=%s: %s", model, version, error)
        return {}
    return {f"expected_{name}": float(figures[name]) for name in FIGURES if name in figures}
