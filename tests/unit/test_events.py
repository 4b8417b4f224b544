"""The stream decoder and the typed events."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchqueue.errors import ProtocolError
from orchqueue.events import (
    End,
    Error,
    Metrics,
    SseDecoder,
    SseFrame,
    Started,
    Token,
    UnknownEvent,
    parse_event,
)

STREAM = (
    b"\xef\xbb\xbf:\n\n"
    b'event: started\ndata: {"queue_position":0,"predicted_start_ms":5,"determinism":"strict"}\n\n'
    b'event: token\nid: 3-00aa\ndata: {"t":"\xe2\x82\xac","i":0}\n\n'
    b": heartbeat\r\n\r\n"
    b'event:token\r\nid:7-00bb\r\ndata:{"t":"line\\nbreak",\r\ndata:"i":1,"c":1}\r\n\r\n'
    b"event: later\rdata: not json\r\r"
    b'event: end\nid: 7-00bb-end\ndata: {"tokens_out":2,"decode_ms":9,"finish_reason":"stop"}\n\n'
    b"event: token\ndata: lost, it is not complete"
)


def decode(stream: bytes, cuts: list[int]) -> list[SseFrame]:
    decoder = SseDecoder()
    frames: list[SseFrame] = []
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        frames += decoder.feed(stream[start:end])
    return frames


def test_a_stream_becomes_its_frames() -> None:
    assert [(frame.event, frame.id) for frame in decode(STREAM, [])] == [
        ("started", None),
        ("token", "3-00aa"),
        ("token", "7-00bb"),
        ("later", None),
        ("end", "7-00bb-end"),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_frames_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    assert decode(STREAM, cuts) == decode(STREAM, [])


def test_frames_are_the_same_byte_by_byte() -> None:
    assert decode(STREAM, list(range(len(STREAM)))) == decode(STREAM, [])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8), st.data())
def test_any_text_survives_the_wire(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(
        b"event: token\ndata: " + json.dumps({"t": text, "i": i}, ensure_ascii=False).encode() + b"\n\n"
        for i, text in enumerate(texts)
    )
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    events = [parse_event(frame) for frame in decode(stream, cuts)]
    assert [event.text for event in events if isinstance(event, Token)] == texts


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=20))
def test_noise_is_read_or_refused_and_alike_for_every_cut(noise: bytes, cuts: list[int]) -> None:
    def outcome(at: list[int]) -> list[SseFrame] | str:
        try:
            return decode(noise, at)
        except ProtocolError as error:
            return str(error)

    assert outcome([cut for cut in cuts if cut <= len(noise)]) == outcome([])


def test_last_event_id_is_kept_and_an_id_with_nul_is_not() -> None:
    decoder = SseDecoder()
    frames = list(decoder.feed(b"id: a\ndata: 1\n\ndata: 2\n\nid: b\0\ndata: 3\n\n"))
    assert [frame.id for frame in frames] == ["a", None, None]
    assert decoder.last_event_id == "a"


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        list(SseDecoder().feed(b"data: \xff\n\n"))


def event_of(name: str, data: object, event_id: str | None = None) -> object:
    return parse_event(SseFrame(name, json.dumps(data), event_id))


def test_started_keeps_what_it_does_not_know() -> None:
    event = event_of("started", {"queue_position": 2, "resumed_from": 40, "later": [1]})
    assert isinstance(event, Started)
    assert (event.queue_position, event.resumed_from, event.predicted_start_ms) == (2, 40, None)
    assert event.data["later"] == [1]


def test_token_channels() -> None:
    tokens = [event_of("token", {"t": "x", "i": 0, "c": channel}) for channel in (0, 1, 2)]
    assert [token.channel for token in tokens if isinstance(token, Token)] == [
        "text",
        "reasoning",
        "tool_call",
    ]
    assert event_of("token", {"t": "x", "i": 4}, "1-ab") == Token("x", 4, "text", "1-ab", {"t": "x", "i": 4})


@pytest.mark.parametrize("data", [{}, {"t": 1, "i": 0}, {"t": "x"}, {"t": "x", "i": 0, "c": 3}, [], "x"])
def test_a_token_that_is_none_is_a_protocol_error(data: object) -> None:
    with pytest.raises(ProtocolError):
        event_of("token", data)


def test_metrics_take_whole_numbers_for_fractions() -> None:
    event = event_of("metrics", {"tokens_per_s": 12, "on_time_probability": 0.5, "kv_warmth": True})
    assert isinstance(event, Metrics)
    assert (event.tokens_per_s, event.on_time_probability, event.kv_warmth) == (12.0, 0.5, True)


def test_end_carries_usage_and_receipt() -> None:
    event = event_of(
        "end", {"tokens_out": 4, "usage": {"tokens_in": 1}, "receipt": {"task_id": "t"}}, "9-ff-end"
    )
    assert isinstance(event, End)
    assert (event.tokens_out, event.usage, event.receipt) == (4, {"tokens_in": 1}, {"task_id": "t"})
    assert event.id == "9-ff-end"


def test_error_becomes_its_exception() -> None:
    event = event_of("error", {"code": "WORKER_RESET", "message": "gone", "retriable": True})
    assert isinstance(event, Error)
    assert type(event.exception()).__name__ == "WorkerReset"


def test_unknown_events_are_kept_with_or_without_json() -> None:
    assert event_of("later", {"a": 1}, "x") == UnknownEvent("later", "x", {"a": 1})
    assert parse_event(SseFrame("later", "{", None)) == UnknownEvent("later", None, "{")


def test_known_event_without_json_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not JSON"):
        parse_event(SseFrame("end", "{", None))
