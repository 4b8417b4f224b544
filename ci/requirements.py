"""`ci/requirements [--check]`: COMPLIANCE.md from contracts, code and tests."""

from __future__ import annotations

import sys

import artefacts
import traceability

PATH = "COMPLIANCE.md"


def main(arguments: list[str]) -> int:
    try:
        return artefacts.run({PATH: traceability.render}, arguments)
    except traceability.UnknownIds as error:
        sys.stderr.write(f"{error}\nhint: add the id to the table, or correct it where it is used\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
