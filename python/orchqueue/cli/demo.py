"""`orchqueue demo`: the whole way once: a daemon, a haiku by a real model, a receipt that is verified."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchqueue.cli.connection import json_argument
from orchqueue.cli.failure import CommandFailed

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.client_sync import Client
    from orchqueue.determinism.haiku_prompt import HaikuPrompt
    from orchqueue.determinism.verify import Verification
    from orchqueue.events import End
    from orchqueue.testing import LiveDaemon

MAX_TOKENS = 128
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Poem:
    """What came back, and how."""

    task_id: str
    text: str
    end: End
    seconds: float
    receipt: dict[str, Any]
    verification: Verification
    faults: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="leave the daemon running")
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    from orchqueue.testing import LiveDaemon

    folder = Path(tempfile.mkdtemp(prefix="orchqueue-demo-")) if args.keep else None
    daemon = LiveDaemon(folder=folder, own_session=args.keep)
    kept = False
    try:
        _start(daemon, terminal)
        with daemon.client() as client:
            poem = _write(client, terminal)
        kept = args.keep
        _report(poem, daemon, terminal, kept=kept)
    finally:
        if not kept:
            daemon.close()
    return 0 if poem.verification.ok and not poem.faults else 1


def _start(daemon: LiveDaemon, terminal: Terminal) -> None:
    from orchqueue.testing import DaemonDied

    terminal.progress("starting a daemon…")
    try:
        daemon.start()
        terminal.progress(f"{daemon.url}: starting a llama.cpp replica with the model `orchqueue-tiny`…")
        daemon.wait_ready(READY_S)
    except DaemonDied as error:
        raise CommandFailed(
            f"the daemon did not start: {error}", "`orchqueue doctor` may know why"
        ) from error


def _write(client: Client, terminal: Terminal) -> Poem:
    from orchqueue.determinism.haiku_prompt import HaikuPrompt
    from orchqueue.determinism.verify import Evidence, parse_keys, verify
    from orchqueue.events import Token

    prompt = HaikuPrompt.now()
    _introduce(prompt, terminal)
    message = {"role": "user", "content": prompt.text}
    stream = client.stream(workload="chat", messages=[message], max_tokens=MAX_TOKENS, temperature=0)
    begun = time.monotonic()
    with stream:
        for event in stream:
            if isinstance(event, Token) and not terminal.json:
                terminal.write(event.text)
        end = stream.result()
    seconds = time.monotonic() - begun
    receipt = client.receipt(stream.task_id)
    evidence = Evidence(output=client.task(stream.task_id).get("output"))
    verification = verify(receipt, parse_keys(client.receipt_keys()), evidence)
    return Poem(stream.task_id, stream.text, end, seconds, receipt, verification, prompt.faults(stream.text))


def _introduce(prompt: HaikuPrompt, terminal: Terminal) -> None:
    if terminal.json:
        return
    terminal.note(f"prompt: {prompt.text}")
    terminal.note("")


def _report(poem: Poem, daemon: LiveDaemon, terminal: Terminal, *, kept: bool) -> None:
    replicas = [str(attempt.get("replica_id")) for attempt in poem.receipt.get("attempts", [])]
    tokens = poem.end.tokens_out or 0
    speed = round(tokens / poem.seconds) if poem.seconds > 0 else None
    if terminal.json:
        terminal.document(
            {
                "ok": poem.verification.ok and not poem.faults,
                "task_id": poem.task_id,
                "text": poem.text,
                "faults": poem.faults,
                "tokens_out": tokens,
                "tokens_per_s": speed,
                "replicas": replicas,
                "receipt": poem.receipt,
                "verification": poem.verification.to_dict(),
                "url": daemon.url if kept else None,
                "pid": daemon.pid if kept else None,
            }
        )
        return
    terminal.end_line()
    terminal.line()
    for fault in poem.faults:
        terminal.line(f"not accepted: {fault}")
    _report_receipt(poem, terminal)
    terminal.line(
        f"{tokens} tokens in {poem.seconds:.2f} s, {speed} tokens/s, by replica: {', '.join(replicas)}"
    )
    terminal.line()
    _next_steps(daemon, terminal, kept=kept)


def _report_receipt(poem: Poem, terminal: Terminal) -> None:
    if poem.verification.ok:
        word = terminal.colored("verified", "green")
    else:
        failed = [check for check in poem.verification.checks if check.outcome == "failed"]
        word = terminal.colored("NOT verified: ", "red") + "; ".join(
            f"{one.name}: {one.reason}" for one in failed
        )
    terminal.line(f"receipt: {word}")
    terminal.line(f"  request  {poem.receipt.get('request_digest')}")
    terminal.line(f"  output   {poem.receipt.get('output_digest')}")
    terminal.line(f"  identity {poem.receipt.get('identity')}")


def _next_steps(daemon: LiveDaemon, terminal: Terminal, *, kept: bool) -> None:
    if kept:
        terminal.line(f"the daemon still runs at {daemon.url}; stop it with: kill {daemon.pid}")
        terminal.line(f"try: orchqueue submit 'Write one line about the sea.' --url {daemon.url}")
        return
    terminal.line("try next:")
    terminal.line("  orchqueue serve                                    # a daemon that stays")
    terminal.line("  orchqueue submit 'Write one line about the sea.'   # in another terminal")
