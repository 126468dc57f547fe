"""MLflow without the plugin that Feast brings. Called by `registry_errors`, around every question to MLflow.

Where both are installed, MLflow's first request loads Feast's provider of request headers, and with it all of Feast:
five seconds of a step that needs none of it. And that provider adds the Kubernetes service account's token to what is
sent to MLflow, wherever that is; credentials for MLflow come from the step's environment alone.
"""

from importlib.metadata import EntryPoint

from mlflow.utils import plugins

HEADERS = "mlflow.request_header_provider"


def leave_out_feast() -> None:
    """From now on, in this process; once MLflow has made its first request it is too late."""
    every = plugins._get_entry_points  # MLflow 3 has no setting for it
    if getattr(every, "without_feast", False):
        return

    def others(group: str) -> list[EntryPoint]:
        found = every(group)
        return found if group != HEADERS else [one for one in found if not one.value.startswith("feast.")]

    others.without_feast = True  # type: ignore[attr-defined]  # a mark for the next call
    plugins._get_entry_points = others
