"""`ci/generate [--check]`: every generated file of the repository, from the one source that each has."""

from __future__ import annotations

import os
import subprocess
import sys

import artefacts
import error_table
import requirements
import traceability
import wire_models

from contracts import ROOT


def config_schema() -> str:
    """The JSON Schema of the configuration, as the package itself states it."""
    command = [sys.executable, "-m", "orchqueue.config", "--schema"]
    # The source tree, whether or not the package is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    return done.stdout


ARTEFACTS = {
    "python/orchqueue/wire_models.py": wire_models.render,
    "contracts/errors.md": error_table.render,
    "contracts/schemas/config.schema.json": config_schema,
    requirements.PATH: traceability.render,
}


def main(arguments: list[str]) -> int:
    try:
        return artefacts.run(ARTEFACTS, arguments)
    except traceability.UnknownIds as error:
        sys.stderr.write(f"{error}\n")
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"`{' '.join(error.cmd[1:4])}` failed: {error.stderr or error.returncode}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
