"""The public surface is a list: a name that comes or goes is a decision, not an accident."""

import importlib
import subprocess
import sys

import orchqueue
import pytest

PUBLIC = [
    "AsyncClient",
    "AsyncTask",
    "AsyncTaskStream",
    "AttemptError",
    "Canceled",
    "Client",
    "DaemonUnreachable",
    "End",
    "Error",
    "Event",
    "InternalError",
    "Metrics",
    "OrchqueueError",
    "ProtocolError",
    "RefusedError",
    "RequestError",
    "Retry",
    "ServerError",
    "Started",
    "StreamInterrupted",
    "Task",
    "TaskStream",
    "Token",
    "TransportError",
    "UnknownEvent",
    "Verification",
    "__version__",
    "verify",
]


def test_exported_names_are_the_agreed_ones() -> None:
    assert orchqueue.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_exported_name_loads(name: str) -> None:
    assert getattr(orchqueue, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="`nothing`"):
        _ = orchqueue.nothing


def test_import_of_the_package_loads_nothing_heavy() -> None:
    heavy = ["httpx", "pydantic", "sqlalchemy", "starlette", "yaml", "asyncio"]
    code = f"import orchqueue, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_client_does_not_load_pydantic() -> None:
    code = "import orchqueue, sys; orchqueue.Client; orchqueue.AsyncClient; print('pydantic' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_version_is_that_of_the_project() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert orchqueue.__version__ == project["project"]["version"]


def test_module_can_be_reloaded() -> None:
    assert importlib.reload(orchqueue) is orchqueue
