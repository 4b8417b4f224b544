"""The tables of what was measured as Markdown, and their place in the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchqueue.determinism.suite import SuiteReport

from determinism_suite.setups import Measured

BEGIN = "<!-- measured: begin -->\n"
END = "<!-- measured: end -->\n"


def promised(reports: Mapping[str, SuiteReport]) -> str:
    """What the promise was held to, by the name of the model."""
    lines = [
        "| model | cases | decodes | replicas | tokens | diverged | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        for one in report.sets:
            lines.append(
                f"| {name} | {one.cases} | {one.decodes.total()} | {len(one.decodes)} | {one.tokens_out} | "
                f"{len(one.divergences)} | {one.seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def rows(measured: Sequence[Measured]) -> str:
    lines = [
        "| set-up | texts differ | log-probabilities differ | largest difference | |",
        "|---|---|---|---|---|",
    ]
    for one in measured:
        apart = one.apart
        word = "harmless" if apart.harmless else "NOT the same"
        lines.append(
            f"| {one.setup.name} | {apart.texts} of {apart.cases} | {apart.logprobs} of {apart.cases} | "
            f"{apart.most:.1e} | {word} |"
        )
    return "\n".join(lines) + "\n"


def put(readme: Path, text: str) -> None:
    """Replaces what stands between the two marks of `readme`."""
    head, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"`{readme}` has no place for the table: {BEGIN.strip()} … {END.strip()}")
    readme.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
