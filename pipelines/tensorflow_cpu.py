"""TensorFlow on the CPU, and without its talk of the GPUs that it did not find.

Called before anything imports Keras or TensorFlow: by train_model, whose repository may, and by model_flavors.py.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pipelines.errors import PipelineError

SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # fatal only; what is wrong is raised, too
    "TF_ENABLE_ONEDNN_OPTS": "0",  # it may round otherwise from one machine to the next
    "KERAS_BACKEND": "tensorflow",
}

# Said at the import, whatever TF_CPP_MIN_LOG_LEVEL is, for the logging is not set up yet.
CHATTER = re.compile(r"WARNING: All log messages before absl::InitializeLog|I0000 .*(cudart_stub|port\.cc|cpu_feature)")


def prepare() -> None:
    """The environment of an import that may come; what is set already stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what this process writes to stderr, and passes on what is not that chatter. It is C++ that writes,
    so it is the file descriptor that is turned.
    """
    prepare()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            said = held.read().decode("utf-8", "replace").splitlines(keepends=True)
            os.write(2, "".join(line for line in said if not CHATTER.match(line)).encode())


def load() -> Any:
    """Keras, on TensorFlow; where they are not installed, an error that says what is missing."""
    with quiet():
        try:
            keras = import_module("keras")
            import_module("tensorflow")  # Keras imports the rest of it late; here that is kept quiet
        except ImportError as error:
            raise PipelineError(
                "models of the type tensorflow need TensorFlow, which this image lacks: build it with the extra "
                "`tensorflow`"
            ) from error
    return keras
