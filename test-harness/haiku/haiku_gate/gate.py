"""The verdict: what the daemon answered, and what the source tree holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchqueue import AsyncClient
from orchqueue.determinism.haiku import HaikuReport, run_haiku
from orchqueue.determinism.haiku_prompt import HaikuPrompt

from haiku_gate.scan import Finding, scan, tree_files


@dataclass(frozen=True, slots=True)
class Verdict:
    report: HaikuReport
    findings: tuple[Finding, ...]
    #: How many files were looked at.
    files: int

    @property
    def ok(self) -> bool:
        # A scan that has seen nothing proves nothing.
        return self.report.ok and not self.findings and self.files > 0

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.report.to_dict(),
            "ok": self.ok,
            "files_scanned": self.files,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def judge(url: str, root: Path) -> Verdict:
    """Asks the daemon at `url` for a poem and looks for it in the tree under `root`."""
    report = asyncio.run(_ask(url))
    return Verdict(report, tuple(scan(root, report)), sum(1 for _ in tree_files(root)))


async def _ask(url: str) -> HaikuReport:
    async with AsyncClient(url) as client:
        return await run_haiku(client, HaikuPrompt.now())
