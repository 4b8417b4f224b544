"""The Python client keeps its side: it sends what the pact says and understands what the pact answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from interactions import CONSUMER, INTERACTIONS, PROVIDER, Interaction
from orchqueue import Client
from orchqueue.errors import ProtocolError
from orchqueue.retry import NEVER
from pact import Pact

ROOT = Path(__file__).resolve().parents[2]
HINT = "hint: write it with `UPDATE_PACTS=1 pytest tests/contract/test_pacts_consumer.py`"
PACT_FILE = ROOT / "contracts" / "pacts" / f"{CONSUMER}-{PROVIDER}.json"


def written(interactions: list[Interaction], folder: Path) -> str:
    """The pact file as it is committed: sorted, without the versions of the tool that wrote it."""
    pact = Pact(CONSUMER, PROVIDER)
    for interaction in interactions:
        interaction.add_to(pact)
    pact.write_file(folder, overwrite=True)
    document: dict[str, Any] = json.loads((folder / PACT_FILE.name).read_text())
    document["metadata"] = {"pactSpecification": document["metadata"]["pactSpecification"]}
    document["interactions"].sort(key=lambda one: one["description"])
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.req("ORCH-4072")
@pytest.mark.parametrize("interaction", INTERACTIONS, ids=lambda one: one.description)
def test_the_client_does_its_part(interaction: Interaction) -> None:
    pact = Pact(CONSUMER, PROVIDER)
    interaction.add_to(pact)
    with pact.serve("127.0.0.1") as server, Client(str(server.url), retry=NEVER) as client:
        outcome = interaction.act(client)
    assert interaction.then(outcome)
    if interaction.code is not None:
        assert outcome.code == interaction.code


def test_the_committed_pact_is_current(tmp_path: Path) -> None:
    text = written(INTERACTIONS, tmp_path)
    if os.environ.get("UPDATE_PACTS"):
        PACT_FILE.write_text(text)
    assert PACT_FILE.exists(), HINT
    assert PACT_FILE.read_text() == text, HINT


def test_a_client_that_asks_for_something_else_is_caught() -> None:
    pact = Pact(CONSUMER, PROVIDER)
    INTERACTIONS[0].add_to(pact)
    server = pact.serve("127.0.0.1", raises=False, verbose=False)
    with server, Client(str(server.url), retry=NEVER) as client:
        with pytest.raises(ProtocolError, match="without an OrchQueue error"):
            client.submit("Another prompt.")
        assert not server.matched
