"""Where a pipeline's steps run on a cluster: in which image, with whose credentials, how long, how often, how large.

Called while compiling. kfp.local ignores all of it but the retries: a subprocess has the run's own environment, and in
it the same variables.

A step that ends with a `PipelineError` would end with it again, and KFP has no way to say so: its IR's retry policy
knows no exit code and no reason. So the clients try again by themselves where a network may fail (MinIO's and MLflow's
do, git is asked again), and a retry of a whole step is there for what ends it from without: a lost node, a full disk,
an image that could not be pulled. Where nothing but the step's own error can end it, as on the local backend, compile
with `--retries 0`.
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

RETRIES = 2  #: further attempts at a step that may be lost from without
BACKOFF, FACTOR, LONGEST = "10s", 2.0, "300s"  #: before the first of them, how much longer before each next, at most
MINUTES = 360  #: a step that takes longer hangs


@dataclass(frozen=True)
class Placement:
    """The image of every step, the Kubernetes secret whose keys become its environment, and what it may use."""

    image: str = IMAGE
    secret: str = SECRET
    keys: Mapping[str, str] = field(default_factory=dict)  #: variable → key in the secret, where it is not the same
    retries: int = RETRIES  #: 0 for none
    cpu: str = ""  #: CPU request of each step, as Kubernetes writes it ("500m"); none is the namespace's default
    memory: str = ""  #: memory request of each step, and its limit ("2Gi"); none is the namespace's default

    def put(
        self, task: dsl.PipelineTask, *, minutes: int = MINUTES, again: bool = True, cached: bool = False
    ) -> dsl.PipelineTask:
        """Places one step, which may take so many minutes.

        `again=False` for a step that mostly computes: what ends it would end it again, hours later. `cached` only for a
        step whose parameters name its content: an unversioned file has the same address with another content.
        """
        task.set_container_image(self.image)
        task.set_caching_options(cached)
        kubernetes.set_timeout(task, minutes * 60)
        if again:
            self.repeat(task)
        self._size(task)
        self._take(task, REQUIRED, optional=False)
        self._take(task, OPTIONAL, optional=True)
        return task

    def repeat(self, task: dsl.PipelineTask) -> None:
        """Lets a cluster start a step anew that was lost."""
        if self.retries:
            task.set_retry(self.retries, backoff_duration=BACKOFF, backoff_factor=FACTOR, backoff_max_duration=LONGEST)

    def _size(self, task: dsl.PipelineTask) -> None:
        """Only what was asked for: kfp.local warns of each."""
        if self.cpu:
            task.set_cpu_request(self.cpu)
        if self.memory:
            task.set_memory_request(self.memory).set_memory_limit(self.memory)

    def _take(self, task: dsl.PipelineTask, variables: Sequence[str], *, optional: bool) -> None:
        """A renamed one by itself: several variables may come from one key, which a mapping by key cannot say."""
        own = {name: name for name in variables if name not in self.keys}
        renamed = [{self.keys[name]: name} for name in variables if name in self.keys]
        for key_to_env in (own, *renamed):
            if key_to_env:
                kubernetes.use_secret_as_env(task, self.secret, key_to_env, optional=optional)
