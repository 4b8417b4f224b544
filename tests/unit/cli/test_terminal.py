"""Where output goes, with and without a terminal."""

import io

import pytest
from orchqueue.cli.failure import Failure
from orchqueue.cli.terminal import Terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_text() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err, json=False)
    terminal.table(["A", "LONGER"], [["x", None], ["wide cell", True]])
    terminal.progress("working")
    terminal.progress("working")
    terminal.fail(Failure("it broke", "mend it"))
    assert out.getvalue() == "A          LONGER\nx          -\nwide cell  yes\n"
    assert err.getvalue() == "working\nerror: it broke\nhint: mend it\n"


def test_a_terminal_gets_colours_and_one_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out, err = Tty(), Tty()
    terminal = Terminal(out, err, json=False)
    terminal.progress("one")
    terminal.progress("two")
    terminal.line(terminal.colored("done", "green"))
    assert out.getvalue() == "\x1b[32mdone\x1b[0m\n"
    assert err.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2K"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert Terminal(Tty(), Tty(), json=False).colored("x", "red") == "x"


def test_json_output_is_json_only() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err, json=True)
    terminal.progress("working")
    terminal.fail(Failure("it broke"))
    assert out.getvalue() == '{"error":{"message":"it broke"}}\n'
    assert err.getvalue() == ""


def test_an_open_line_is_ended_once() -> None:
    out = io.StringIO()
    terminal = Terminal(out, io.StringIO(), json=False)
    terminal.write("text")
    terminal.end_line()
    terminal.end_line()
    terminal.write("whole\n")
    terminal.end_line()
    assert out.getvalue() == "text\nwhole\n"
