"""`python -m orchqueue.config --schema` prints the JSON Schema that contracts/schemas/ holds."""

from __future__ import annotations

import argparse
import json
import sys

from orchqueue.config import schema


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m orchqueue.config")
    parser.add_argument("--schema", action="store_true", required=True, help="print the JSON Schema")
    parser.parse_args(arguments)
    sys.stdout.write(json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
