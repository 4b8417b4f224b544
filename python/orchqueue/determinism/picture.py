"""The report of the determinism suite as one HTML page that needs nothing else: figures and token diffs.

In a diff each box is one event of the stream. What both sides share is grey, the first box that differs is
marked, and everything after it is in the colour of its side.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from orchqueue.determinism.divergence import Decode, Divergence

if TYPE_CHECKING:
    from orchqueue.determinism.suite import SetReport, SuiteReport

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
body{color:#1d2329;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.ok{color:#18794e}.bad{color:#c62a2f}
table{border-collapse:collapse;margin:1rem 0}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #e3e6e8}
th{font-weight:600}code{font-family:ui-monospace,monospace;font-size:.9em}
figure{margin:1.5rem 0;border:1px solid #d7dbdf;border-radius:6px;padding:1rem}
figcaption{margin-bottom:.7rem}
.side{margin:.5rem 0}.who{font-size:.85em;color:#5c656d}
.t{display:inline-block;white-space:pre-wrap;font-family:ui-monospace,monospace;font-size:13px;
border-radius:3px;padding:0 2px;margin:1px;background:#eef0f2;color:#5c656d}
.left .t.d{background:#fde3e4;color:#8c1d22}.right .t.d{background:#dbeafe;color:#1d4373}
.t.first{outline:2px solid #1d2329;font-weight:700}
@media (prefers-color-scheme:dark){
body{background:#15181b;color:#e6e9eb}th,td,figure{border-color:#2c3237}
.t{background:#22272b;color:#9aa4ac}
.left .t.d{background:#4a1d20;color:#ffc9cb}.right .t.d{background:#1b3350;color:#c5dcff}
.t.first{outline-color:#e6e9eb}.ok{color:#4cc38a}.bad{color:#ff8589}}
"""


def page(report: SuiteReport) -> str:
    """The whole page."""
    word = (
        '<span class="ok">no difference</span>' if report.ok else '<span class="bad">NOT reproducible</span>'
    )
    plan = report.plan
    temperatures = ", ".join(f"{one:g}" for one in plan.temperatures)
    asked = f"{plan.prompts} prompts of {plan.tokens} tokens at temperature {temperatures}, seed {plan.seed}"
    parts = [_set(one) for one in report.sets]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>orchqueue determinism</title>'
        f"<style>{_STYLE}</style></head><body><h1>Determinism: {word}</h1><p>{escape(asked)}</p>"
        f"{''.join(parts)}</body></html>\n"
    )


def _set(report: SetReport) -> str:
    target = report.target
    served = ", ".join(f"{name}: {count}" for name, count in sorted(report.decodes.items()))
    rows = {
        "identity": target.identity,
        "engine": f"{target.engine} {target.engine_version}",
        "model": target.model_digest,
        "cases": str(report.cases),
        "decodes by replica": served or "none",
        "tokens": str(report.tokens_out),
        "seconds": f"{report.seconds:.1f}",
        "diverged": str(len(report.divergences)),
        "not finished": str(len(report.unfinished)),
        "served by one replica only": str(report.one_sided),
    }
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td><code>{escape(text)}</code></td></tr>" for name, text in rows.items()
    )
    diffs = "".join(figure(one) for one in report.divergences)
    return f"<h2>Pool {escape(target.pool_id)}</h2><table>{cells}</table>{diffs}"


def figure(divergence: Divergence) -> str:
    """The picture of one difference."""
    case = divergence.case
    caption = (
        f"<b>{escape(divergence.reason)}</b><br><code>{escape(case.prompt)}</code><br>"
        f"seed {case.seed}, temperature {case.temperature:g}"
    )
    left, right = divergence.left, divergence.right
    same = _shared(_boxes(left), _boxes(right))
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f"{_side('left', left, same)}{_side('right', right, same)}</figure>"
    )


def _side(side: str, decode: Decode, same: int) -> str:
    boxes = []
    for number, piece in enumerate(_boxes(decode)):
        kind = "t" if number < same else "t d first" if number == same else "t d"
        boxes.append(f'<span class="{kind}">{escape(piece).replace(chr(10), "⏎")}</span>')
    who = f"{decode.replica_id}, task {decode.task_id}, digest {decode.output_digest[:16]}"
    return f'<div class="side {side}"><div class="who">{escape(who)}</div>{"".join(boxes)}</div>'


def _boxes(decode: Decode) -> tuple[str, ...]:
    return decode.pieces or (decode.text,)


def _shared(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """How many boxes both sides have in common, from the start."""
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return number
    return min(len(left), len(right))
