"""The generators of ci/: what they write they recognise, and what is not current they say."""

from __future__ import annotations

from pathlib import Path

import artefacts
import pytest
import traceability
import wire_models

# Put together here, so that this file itself is no evidence for any of them.
ID = "ORCH-"
SUBMIT, LEAST_LOADED, POLICY, METRICS, UNKNOWN = (
    f"{ID}{number}" for number in (2001, 3007, 3048, 4031, 9999)
)


def test_a_stale_or_missing_file_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    made = {"a/one.md": lambda: "one\n"}
    assert artefacts.run(made, ["--check"]) == 1
    assert artefacts.run(made, []) == 0
    assert artefacts.run(made, ["--check"]) == 0
    (tmp_path / "a/one.md").write_text("two\n")
    assert artefacts.run(made, ["--check"]) == 1
    assert "not current: `a/one.md`" in capsys.readouterr().err
    assert artefacts.run(made, ["--chek"]) == 2


def test_wire_models_come_out_the_same_every_time() -> None:
    first = wire_models.render()
    assert first == wire_models.render()
    assert first == (artefacts.ROOT / "python/orchqueue/wire_models.py").read_text()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one module and one test, under the real contracts."""
    for folder in ("rust/core/src", "python/orchqueue", "tests/unit"):
        (tmp_path / folder).mkdir(parents=True)
    contracts = tmp_path / "contracts"
    contracts.mkdir()
    (contracts / "metrics.yaml").write_text(f"# ({METRICS})\n")
    monkeypatch.setattr(traceability, "ROOT", tmp_path)
    monkeypatch.setattr(traceability, "CONTRACTS", contracts)
    return tmp_path


def status_of(orch_id: str) -> str:
    row = next(line for line in traceability.render().splitlines() if line.startswith(f"| {orch_id} "))
    return row.rpartition("|")[0].rpartition("|")[2].strip()


def test_an_id_is_open_then_built_then_proven(tree: Path) -> None:
    assert status_of(LEAST_LOADED) == "open"
    assert status_of(POLICY) == "planned"
    source = tree / "rust/core/src/place.rs"
    source.write_text(f"//! Least loaded ({LEAST_LOADED}).\n")
    assert status_of(LEAST_LOADED) == "built"
    source.write_text(f"#[cfg(test)]\nmod tests {{\n    // req: {LEAST_LOADED}\n}}\n")
    assert status_of(LEAST_LOADED) == "proven"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("test_x.py", f'@pytest.mark.req("{SUBMIT}")'),
        ("test_x.py", f"# req: {SUBMIT}"),
        ("x.feature", f"  @{SUBMIT}"),
    ],
)
def test_a_test_names_an_id_in_any_of_the_ways(tree: Path, name: str, line: str) -> None:
    (tree / "tests/unit" / name).write_text(f"{line}\n")
    assert status_of(SUBMIT) == "proven"


def test_an_id_in_passing_proves_nothing(tree: Path) -> None:
    (tree / "tests/unit/test_x.py").write_text(f'"""Speaks of {LEAST_LOADED}."""\n')
    assert status_of(LEAST_LOADED) == "open"


@pytest.mark.parametrize("folder", ["python/orchqueue", "tests/unit"])
def test_an_unknown_id_fails(tree: Path, folder: str) -> None:
    (tree / folder / "x.py").write_text(f"# req: {UNKNOWN}\n")
    with pytest.raises(traceability.UnknownIds, match=rf"{UNKNOWN}: .*x\.py"):
        traceability.render()
