"""The README does what it says: its examples run, its table of refusals is true, its commands exist.

A block is run when the comment before it says so: `<!-- run -->`, or `<!-- run, shows: TEXT -->` when TEXT
must be in what it prints. `run apart` runs it in a folder of its own, `run: config` checks a configuration.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from orchqueue.testing import LiveDaemon

from .test_bad_input import TABLE, Bad

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8700"
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>run[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"run(?P<apart> apart)?(?P<config>: config)?(?:, shows: (?P<shows>.+))?$")
ROW = re.compile(
    r"^\| (?P<name>[^|]+) \| (?P<status>\d{3}) \| `(?P<code>\w+)` \| (?P<message>.+) \|$", re.MULTILINE
)


@dataclass(frozen=True)
class Example:
    """A block of the README that is run."""

    name: str
    language: str
    text: str
    apart: bool
    config: bool
    shows: str


def examples() -> Iterator[Example]:
    for block in BLOCK.finditer(README):
        if block["mark"] is None:
            continue
        mark = MARK.match(block["mark"])
        assert mark is not None, f"not understood: {block['mark']}"
        line = README[: block.start()].count("\n") + 1
        yield Example(
            f"{block['language']}, line {line}",
            block["language"],
            block["text"],
            apart=mark["apart"] is not None,
            config=mark["config"] is not None,
            shows=mark["shows"] or "",
        )


EXAMPLES = list(examples())
REFUSALS = list(ROW.finditer(README))


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """`orchqueue serve` as it comes, but on a free port; its store lies where the examples run."""
    folder = tmp_path_factory.mktemp("readme")
    with LiveDaemon({"store": {"url": "sqlite:///orchqueue.db"}}, folder=folder) as daemon:
        yield daemon


def executed(example: Example, url: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a block as its reader would, with the daemon's address for the one in the text."""
    text = example.text.replace(ADDRESS, url)
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "ORCHQUEUE_URL": url, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    if example.config:
        (folder / "example.yaml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "orchqueue", "config", "check", "example.yaml"]
    elif example.language == "python":
        command = [sys.executable, "-W", "error", "-c", text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)


@pytest.mark.parametrize("example", EXAMPLES, ids=[one.name for one in EXAMPLES])
def test_example_runs_and_shows_what_it_promises(
    newcomer: LiveDaemon, tmp_path: Path, example: Example
) -> None:
    if example.language == "sh" and "curl" in example.text and shutil.which("curl") is None:
        pytest.skip("`curl` is not installed")
    done = executed(example, newcomer.url, tmp_path if example.apart else newcomer.folder)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert example.shows in f"{done.stdout}{done.stderr}"


def test_the_quick_start_is_run() -> None:
    assert len(EXAMPLES) >= 8
    assert {one.language for one in EXAMPLES} == {"sh", "python", "yaml"}


@pytest.mark.parametrize("row", REFUSALS, ids=[row["name"] for row in REFUSALS])
def test_refusal_is_as_the_table_says(newcomer: LiveDaemon, row: "re.Match[str]") -> None:
    bad = next((one for one in TABLE if one.name == row["name"]), None)
    assert isinstance(bad, Bad), f"`{row['name']}` is not in the table of test_bad_input.py"
    answer = httpx.request(bad.method, f"{newcomer.url}{bad.path}", content=bad.content, headers=bad.headers)
    error = answer.json()
    assert (answer.status_code, error["code"]) == (int(row["status"]), row["code"])
    assert error["message"] == row["message"]


def test_the_table_of_refusals_is_found() -> None:
    assert len(REFUSALS) >= 9


def test_every_make_command_that_is_named_exists() -> None:
    targets = set(
        re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = set(
        re.findall(
            r"\bmake ([a-z]+)(?=[`\s])",
            "\n".join(re.findall(r"`[^`]+`|^make .*$", README, re.MULTILINE)) + "\n",
        )
    )
    assert {"demo", "test"} <= named
    assert named <= targets
