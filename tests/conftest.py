"""What every test starts from: an environment without our settings in it, and a home of its own."""

import os
from pathlib import Path

import pytest

for _name in [name for name in os.environ if name.startswith(("KFP_TRIGGERS_", "AWS_", "MLFLOW_", "FEAST_", "S3_"))]:
    del os.environ[_name]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, set as the one in force."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _metrics_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, once imported, puts prometheus_client into its multi-process mode for the whole process."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.delenv("prometheus_multiproc_dir", raising=False)
