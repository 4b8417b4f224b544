"""What tests of every kind share: a clean environment and the model that is slow enough to be caught."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    """No setting of whoever runs the tests reaches the daemons and clients in them."""
    for name in [name for name in os.environ if name.startswith("ORCHQUEUE_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights: some hundred tokens a second, and it never ends by itself."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    maker = [sys.executable, str(ROOT / "test-harness" / "slow_model.py"), str(path)]
    subprocess.run(
        [*maker, "--hidden", "512", "--layers", "8", "--ctx", "1024"], check=True, capture_output=True
    )
    return path
