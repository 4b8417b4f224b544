"""Runs commands in this process, against a callable in place of the daemon."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orchqueue.client
import pytest
from orchqueue.cli.main import main
from orchqueue.exchange import new_http_client


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Cli:
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    requests: list[httpx.Request] = field(default_factory=list)

    def daemon(self, handler: Callable[[httpx.Request], httpx.Response]) -> None:
        """Lets `handler` answer for the daemon from now on."""

        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return handler(request)

        self.monkeypatch.setattr(
            orchqueue.client,
            "new_http_client",
            lambda url, key, transport: new_http_client(url, key, httpx.MockTransport(answer)),
        )

    def run(self, *words: str) -> Outcome:
        try:
            code = main(list(words))
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = self.capsys.readouterr()
        return Outcome(code, captured.out, captured.err)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.delenv("ORCHQUEUE_URL", raising=False)
    monkeypatch.delenv("ORCHQUEUE_API_KEY", raising=False)
    return Cli(capsys, monkeypatch)
