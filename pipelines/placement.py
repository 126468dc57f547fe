"""Where a pipeline's steps run on a cluster: in which image, with whose credentials. Called while compiling.

kfp.local ignores all of it: a subprocess has the run's own environment, and in it the same variables.
"""

from dataclasses import dataclass

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

    def put(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Places one step.

        Nothing is served from KFP's cache: an unversioned file has the same address with another content.
        """
        task.set_container_image(self.image)
        task.set_caching_options(False)
        kubernetes.use_secret_as_env(task, self.secret, {key: key for key in REQUIRED})
        kubernetes.use_secret_as_env(task, self.secret, {key: key for key in OPTIONAL}, optional=True)
        return task
