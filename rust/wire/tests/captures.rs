//! What each engine's streams read as: text, ids, usage, and how they ended.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test file: a failure is a panic"
)]

mod recorded;

use orchqueue_wire::reader::{
    EngineEnd, EngineFault, FaultClass, StreamReader, StreamState, TokenBatch,
};
use orchqueue_wire::{Channel, FinishReason, Usage};
use recorded::{Reading, Recording, read};

/// The text of one channel.
fn text(reading: &Reading, channel: Channel) -> String {
    let of_channel = reading.events.iter().filter(|event| event.0 == channel);
    of_channel.map(|event| event.1.as_str()).collect()
}

fn ended(recording: Recording) -> EngineEnd {
    match recording.read().state {
        StreamState::Ended(end) => end,
        other => panic!("{}: {other:?}", recording.name),
    }
}

fn fault(recording: Recording) -> EngineFault {
    match recording.read().state {
        StreamState::Failed(fault) => fault,
        other => panic!("{}: {other:?}", recording.name),
    }
}

fn usage(tokens_in: u32, tokens_out: u32, tokens_cached: Option<u32>) -> Usage {
    Usage {
        tokens_in,
        tokens_out,
        tokens_cached,
    }
}

#[test]
fn test_every_stream_ends_or_fails() {
    for recording in recorded::ALL {
        let state = recording.read().state;
        assert_ne!(state, StreamState::Open, "{}", recording.name);
    }
}

#[test]
fn test_llamacpp_completion() {
    let reading = recorded::LLAMACPP_COMPLETION.read();
    assert_eq!(reading.events.len(), 6);
    assert_eq!(text(&reading, Channel::Text), "plicSestYream read");
    let ids = vec![328, 55, 272, 61, 359, 366];
    assert_eq!(reading.ids, ids);
    assert_eq!(
        ended(recorded::LLAMACPP_COMPLETION),
        EngineEnd {
            finish_reason: FinishReason::Length,
            usage: usage(3, 6, Some(2)),
            ids: Some(ids)
        }
    );
}

#[test]
fn test_llamacpp_progress_events_carry_no_token() {
    let reading = recorded::LLAMACPP_PROGRESS.read();
    assert_eq!(reading.ids, [328, 55], "the bogus id 0 must not be taken");
    assert_eq!(ended(recorded::LLAMACPP_PROGRESS).ids, Some(vec![328, 55]));
}

#[test]
fn test_llamacpp_characters_of_several_tokens_make_the_ids_incomplete() {
    for (recording, wanted, tokens_out) in [
        (recorded::LLAMACPP_SPLIT_CHARACTERS, "éé", 4),
        (recorded::LLAMACPP_TRUNCATED_CHARACTER, "é", 3),
    ] {
        let end = ended(recording);
        assert_eq!(text(&recording.read(), Channel::Text), wanted);
        assert_eq!((end.usage.tokens_out, end.ids), (tokens_out, None));
    }
}

#[test]
fn test_llamacpp_text_held_back_for_a_stop_word() {
    let reading = recorded::LLAMACPP_STOP_WORD.read();
    let texts: Vec<&str> = reading
        .events
        .iter()
        .map(|event| event.1.as_str())
        .collect();
    assert_eq!(
        texts,
        ["plic", "S", "es"],
        "an event without text is no token event"
    );
    let end = ended(recorded::LLAMACPP_STOP_WORD);
    assert_eq!(end.finish_reason, FinishReason::Stop);
    assert_eq!(end.ids, Some(vec![328, 55, 272, 61, 359]));
}

#[test]
fn test_llamacpp_only_the_first_answer_counts() {
    let reading = recorded::LLAMACPP_TWO_PROMPTS.read();
    assert_eq!(text(&reading, Channel::Text), "zyces");
    let end = ended(recorded::LLAMACPP_TWO_PROMPTS);
    assert_eq!(
        (end.finish_reason, end.ids),
        (FinishReason::Stop, Some(vec![336, 301]))
    );
}

#[test]
fn test_llamacpp_an_answer_without_text_is_an_answer() {
    let reading = recorded::LLAMACPP_NO_TEXT.read();
    assert!(reading.events.is_empty());
    let end = ended(recorded::LLAMACPP_NO_TEXT);
    assert_eq!((end.usage, end.ids), (usage(3, 1, Some(2)), Some(vec![1])));
}

#[test]
fn test_llamacpp_error_in_the_stream() {
    let reading = recorded::LLAMACPP_CONTEXT_EXCEEDED.read();
    assert_eq!(
        (text(&reading, Channel::Text), reading.tokens_out),
        ("j on".to_owned(), 2)
    );
    let fault = fault(recorded::LLAMACPP_CONTEXT_EXCEEDED);
    assert_eq!(fault.class, FaultClass::Engine);
    assert_eq!(fault.message, "Context size has been exceeded.");
}

// req: ORCH-4005
#[test]
fn test_a_stream_without_its_end_marker_is_a_transport_fault() {
    let reading = recorded::LLAMACPP_TERMINATED.read();
    assert_eq!(text(&reading, Channel::Text), "plicSest");
    for recording in [
        recorded::LLAMACPP_TERMINATED,
        recorded::VLLM_DONE_WITHOUT_END,
    ] {
        assert_eq!(
            fault(recording).class,
            FaultClass::Transport,
            "{}",
            recording.name
        );
    }
}

#[test]
fn test_chat_with_usage_after_the_end_event() {
    let reading = recorded::LLAMACPP_CHAT.read();
    assert_eq!(text(&reading, Channel::Text), "own quick\\\n");
    let end = EngineEnd {
        finish_reason: FinishReason::Length,
        usage: usage(17, 3, Some(1)),
        ids: None,
    };
    assert_eq!(ended(recorded::LLAMACPP_CHAT), end);
    assert_eq!(ended(recorded::LLAMACPP_V1_COMPLETIONS), end);
}

#[test]
fn test_reasoning_and_tool_calls_have_channels_of_their_own() {
    let reading = recorded::OPENAI_CHAT_TOOLS.read();
    assert_eq!(text(&reading, Channel::Reasoning), "Look it up.");
    assert_eq!(text(&reading, Channel::Text), "One moment.");
    let calls = text(&reading, Channel::ToolCall);
    let pieces: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&calls)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(pieces[0][0]["function"]["name"], "find");
    assert_eq!(pieces[1][0]["function"]["arguments"], r#"{"q":"é"}"#);
    assert_eq!(
        ended(recorded::OPENAI_CHAT_TOOLS).finish_reason,
        FinishReason::ToolCalls
    );
}

#[test]
fn test_vllm_end_on_the_last_token_event() {
    let reading = recorded::VLLM_COMPLETIONS.read();
    assert_eq!(text(&reading, Channel::Text), " deterministicBB");
    let end = EngineEnd {
        finish_reason: FinishReason::Length,
        usage: usage(3, 3, None),
        ids: Some(vec![415, 38, 38]),
    };
    assert_eq!(ended(recorded::VLLM_COMPLETIONS), end);
}

#[test]
fn test_vllm_several_tokens_in_one_event() {
    let reading = recorded::VLLM_SEVERAL_TOKENS.read();
    assert_eq!((reading.events.len(), reading.tokens_out), (2, 5));
    assert_eq!(
        ended(recorded::VLLM_SEVERAL_TOKENS).ids,
        Some(vec![415, 38, 38, 38, 38])
    );
}

#[test]
fn test_vllm_done_after_an_error_is_no_success() {
    let fault = fault(recorded::VLLM_ENGINE_DIED);
    assert_eq!(fault.class, FaultClass::Engine);
    assert_eq!(fault.message, "EngineCore encountered an issue.");
}

#[test]
fn test_a_reason_that_the_grammar_does_not_know_fails_the_attempt() {
    let fault = fault(recorded::VLLM_ABORTED);
    assert_eq!(fault.class, FaultClass::Engine);
    assert!(fault.message.contains("`abort`"), "{}", fault.message);
}

#[test]
fn test_triton_ends_with_the_body() {
    let reading = recorded::TRITON_STREAM.read();
    assert_eq!(text(&reading, Channel::Text), "plicSestY");
    let end = EngineEnd {
        finish_reason: FinishReason::Stop,
        usage: usage(0, 4, None),
        ids: Some(vec![328, 55, 272, 61]),
    };
    assert_eq!(ended(recorded::TRITON_STREAM), end);
    assert_eq!(
        fault(recorded::TRITON_FAILED).message,
        "asked to fail mid stream"
    );
}

#[test]
fn test_an_engine_without_end_marker_proves_nothing_by_an_empty_or_cut_body() {
    let body = recorded::TRITON_STREAM.body;
    for cut in [
        "",
        ":\n\n",
        "data: null\n\n",
        &body[..body.len() - 4],
        &format!("{body}dat"),
    ] {
        let reading = read(recorded::TRITON_STREAM.grammar(), &[cut]);
        assert!(
            matches!(&reading.state, StreamState::Failed(f) if f.class == FaultClass::Transport),
            "{cut}"
        );
    }
}

#[test]
fn test_tgi_special_tokens_are_counted_but_not_text() {
    let reading = recorded::TGI_STREAM.read();
    assert_eq!(text(&reading, Channel::Text), " for /");
    let end = EngineEnd {
        finish_reason: FinishReason::Stop,
        usage: usage(4, 3, None),
        ids: Some(vec![363, 847, 2]),
    };
    assert_eq!(ended(recorded::TGI_STREAM), end);
}

#[test]
fn test_tgi_error_with_status_200() {
    let fault = fault(recorded::TGI_OVERLOADED);
    assert_eq!(
        (fault.class, fault.message.as_str()),
        (FaultClass::Busy, "Model is overloaded")
    );
}

#[test]
fn test_lines_of_json() {
    let end = ended(recorded::LINES);
    assert_eq!(text(&recorded::LINES.read(), Channel::Text), "Hello");
    assert_eq!(end.usage, usage(5, 2, None));
}

#[test]
fn test_garbage_is_a_transport_fault_that_quotes_nothing() {
    let reading = read(
        recorded::LLAMACPP_COMPLETION.grammar(),
        &["data: {\"content\":\"a\",\"tokens\":[1]}\n\ndata: secret words\n\n"],
    );
    assert_eq!(text(&reading, Channel::Text), "a");
    let StreamState::Failed(fault) = reading.state else {
        panic!("garbage was accepted")
    };
    assert_eq!(fault.class, FaultClass::Transport);
    assert!(!fault.message.contains("secret"));
}

#[test]
fn test_an_error_after_the_end_event_wins_until_the_stream_is_settled() {
    let end = r#"{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}"#;
    let error = r#"{"error":{"message":"late","code":500}}"#;
    let grammar = recorded::VLLM_COMPLETIONS.grammar();
    let before = format!("data: {end}\n\ndata: {error}\n\ndata: [DONE]\n\n");
    let after = format!("data: {end}\n\ndata: [DONE]\n\ndata: {error}\n\n");
    let state = |body: String| read(grammar.clone(), &[body]).state;
    assert!(matches!(state(before), StreamState::Failed(fault) if fault.message == "late"));
    assert!(matches!(state(after), StreamState::Ended(_)));
}

#[test]
fn test_a_last_event_without_its_blank_line_counts_if_it_is_complete() {
    let recording = recorded::LLAMACPP_COMPLETION;
    let whole = recording.read();
    for cut in 1..3 {
        let body = &recording.body[..recording.body.len() - cut];
        assert_eq!(read(recording.grammar(), &[body]), whole);
    }
    let state = read(
        recording.grammar(),
        &[&recording.body[..recording.body.len() - 3]],
    )
    .state;
    assert!(matches!(state, StreamState::Failed(fault) if fault.class == FaultClass::Transport));
}

#[test]
fn test_a_broken_connection_fails_the_attempt_unless_the_end_event_came() {
    let break_off = |recording: Recording, body: &str| {
        let mut reader = StreamReader::new(recording.grammar());
        let mut batch = TokenBatch::default();
        _ = reader.push(body.as_bytes(), &mut batch);
        reader.break_off(&mut batch)
    };
    let triton = recorded::TRITON_STREAM;
    assert!(matches!(
        break_off(triton, triton.body),
        StreamState::Failed(_)
    ));
    let chat = recorded::LLAMACPP_CHAT;
    let without_done = chat.body.strip_suffix("data: [DONE]\n\n").unwrap();
    assert!(matches!(
        break_off(chat, without_done),
        StreamState::Ended(_)
    ));
    let (before_end, _) = chat.body.split_once("\"length\"").unwrap();
    assert!(matches!(
        break_off(chat, before_end),
        StreamState::Failed(_)
    ));
}

#[test]
fn test_a_settled_reader_stays_settled() {
    let mut reader = StreamReader::new(recorded::LLAMACPP_COMPLETION.grammar());
    let mut batch = TokenBatch::default();
    let body = recorded::LLAMACPP_COMPLETION.body.as_bytes();
    let first = reader.push(body, &mut batch);
    batch.clear();
    assert!(matches!(first, StreamState::Ended(_)));
    assert_eq!(reader.push(body, &mut batch), first);
    assert_eq!(reader.finish(&mut batch), first);
    assert_eq!(batch, TokenBatch::default());
}

#[test]
fn test_an_oversize_event_is_refused_after_what_came_before_it() {
    let long = format!("{{\"content\":\"{}\"}}", "x".repeat(2 << 20));
    let body = format!("data: {{\"content\":\"a\"}}\n\ndata: {long}\n\n");
    let reading = read(recorded::LLAMACPP_COMPLETION.grammar(), &[body]);
    assert_eq!(text(&reading, Channel::Text), "a");
    let StreamState::Failed(fault) = reading.state else {
        panic!("accepted")
    };
    assert!(
        fault.message.ends_with("`max_event_bytes`: 1048576"),
        "{}",
        fault.message
    );
}

#[test]
fn test_half_characters_of_different_channels_do_not_meet() {
    let grammar = recorded::LLAMACPP_CHAT.grammar();
    let event = |field: &str, text: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"{field}\":\"{text}\"}}}}]}}\n\n")
    };
    let halves = [
        event("reasoning_content", r"a\ud83d"),
        event("content", r"\ude00b"),
    ];
    let reading = read(grammar.clone(), &halves);
    assert_eq!(text(&reading, Channel::Reasoning), "a\u{fffd}");
    assert_eq!(text(&reading, Channel::Text), "\u{fffd}b");
    let halves = [event("content", r"a\ud83d"), event("content", r"\ude00b")];
    assert_eq!(text(&read(grammar, &halves), Channel::Text), "a😀b");
}
