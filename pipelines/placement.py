"""Where a pipeline's steps run on a cluster: in which image, with whose credentials. Called while compiling.

kfp.local ignores all of it: a subprocess has the run's own environment, and in it the same variables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kfp import dsl, kubernetes

IMAGE = "kfp-triggers/components:latest"
SECRET = "kfp-triggers-components"  # noqa: S105 - the name of a Kubernetes secret

REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
OPTIONAL = (
    "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "FEAST_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """The image of every step, and the Kubernetes secret whose keys become its environment."""

    image: str = IMAGE
    secret: str = SECRET
    keys: Mapping[str, str] = field(default_factory=dict)  #: variable → key in the secret, where it is not the same

    def put(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Places one step.

        Nothing is served from KFP's cache: an unversioned file has the same address with another content.
        """
        task.set_container_image(self.image)
        task.set_caching_options(False)
        self._take(task, REQUIRED, optional=False)
        self._take(task, OPTIONAL, optional=True)
        return task

    def _take(self, task: dsl.PipelineTask, variables: Sequence[str], *, optional: bool) -> None:
        """A renamed one by itself: several variables may come from one key, which a mapping by key cannot say."""
        own = {name: name for name in variables if name not in self.keys}
        renamed = [{self.keys[name]: name} for name in variables if name in self.keys]
        for key_to_env in (own, *renamed):
            if key_to_env:
                kubernetes.use_secret_as_env(task, self.secret, key_to_env, optional=optional)
