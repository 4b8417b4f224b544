"""The promise itself: two real replicas of one set behind a daemon, every case decoded on both.

There is no way to send a task to a replica of choice, and none is wanted: what is tested is the daemon that
users have. `orchqueue.determinism.suite` submits every case as often at once as there are replicas, and the
receipts say who served it; a case that only one replica has served is a failure.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchqueue import AsyncClient
from orchqueue.determinism.cases import Plan
from orchqueue.determinism.picture import page
from orchqueue.determinism.suite import SuiteReport, run_suite
from orchqueue.testing import LiveDaemon


@dataclass(frozen=True, slots=True)
class Pair:
    """A model that two replicas serve."""

    pool: str
    model: str
    ctx: int

    def config(self) -> dict[str, Any]:
        return {
            "id": self.pool,
            "engine": "llamacpp",
            "model": self.model,
            "ctx": self.ctx,
            "determinism": "strict",
            "replicas": [{"spawn": "embedded", "count": 2}],
        }


def hold(pair: Pair, plan: Plan) -> SuiteReport:
    """Starts a daemon with two replicas and holds them to the promise."""
    with LiveDaemon({"pools": [pair.config()]}) as daemon:
        return asyncio.run(_run(daemon.url, plan))


async def _run(url: str, plan: Plan) -> SuiteReport:
    async with AsyncClient(url) as client:
        return await run_suite(client, plan)


def write_artifacts(report: SuiteReport, folder: Path, name: str) -> tuple[Path, Path]:
    """The report as JSON for machines and as a page with the token diffs for people."""
    folder.mkdir(parents=True, exist_ok=True)
    document, picture = folder / f"{name}.json", folder / f"{name}.html"
    document.write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    picture.write_text(page(report), encoding="utf-8")
    return document, picture
