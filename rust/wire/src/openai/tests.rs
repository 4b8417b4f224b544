use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::errors::{Code, ErrorBody};
use crate::request::Input;
use crate::vocabulary::{Channel, FinishReason, Usage, Workload};

const ID: &str = "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11";
const USAGE: Usage = Usage {
    tokens_in: 3,
    tokens_out: 2,
    tokens_cached: None,
};

fn chat(extra: Value) -> Result<(TaskRequest, ChatView), ParamError> {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    parse_chat(body.to_string().as_bytes())
}

fn completion(body: Value) -> Result<(TaskRequest, ChatView), ParamError> {
    parse_completion(body.to_string().as_bytes())
}

#[test]
fn test_a_chat_becomes_a_best_effort_task_that_is_canceled_with_its_client() {
    let (task, view) =
        chat(json!({"stream": true, "stream_options": {"include_usage": true}})).unwrap();
    assert_eq!(task.workload, Workload::Chat);
    assert_eq!(task.model_ref.as_deref(), Some("tiny"));
    assert_eq!(task.determinism, Some(Level::BestEffort));
    assert_eq!(task.on_disconnect, Some(OnDisconnect::Cancel));
    assert_eq!(
        view,
        ChatView {
            door: Door::Chat,
            stream: true,
            include_usage: true,
            model: "tiny".to_owned()
        }
    );
}

#[test]
fn test_what_cannot_change_the_output_is_ignored_and_null_is_absent() {
    let plain = chat(json!({})).unwrap().0;
    for extra in [
        json!({"user": "u", "metadata": {}, "store": false, "service_tier": "auto", "parallel_tool_calls": true}),
        json!({"logprobs": false, "modalities": ["text"], "tool_choice": "auto", "tools": []}),
        json!({"temperature": null, "stop": null, "n": 1, "audio": null}),
    ] {
        assert_eq!(chat(extra.clone()).unwrap().0, plain, "{extra}");
    }
}

#[test]
fn test_what_would_change_the_output_and_is_not_supported_is_refused() {
    for (field, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(1)),
        ("audio", json!({})),
        ("modalities", json!(["audio"])),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({"type": "function"})),
        ("reasoning_effort", json!("low")),
        ("functions", json!([])),
        ("prompt", json!("x")),
        ("best_of", json!(2)),
        ("stream", json!("yes")),
        ("stream_options", json!([])),
        ("model", json!("a b")),
        ("model", json!("")),
        ("temperature", json!(3)),
        ("wait", json!(true)),
    ] {
        let error = chat(json!({field: value})).err().unwrap();
        assert_eq!(error.field.as_deref(), Some(field), "{}", error.message);
    }
    let error = chat(json!({"priority": "batch"})).err().unwrap();
    assert!(error.hint.unwrap().contains("X-Orchqueue-Priority"));
    let error = chat(json!({"temprature": 1})).err().unwrap();
    assert_eq!(error.hint.as_deref(), Some("did you mean `temperature`?"));
}

#[test]
fn test_messages_are_brought_into_the_tasks_form() {
    let body = json!({"messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": null},
        {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
            {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    ]});
    let (task, _) = chat(body).unwrap();
    let Input::Messages(messages) = task.input else {
        panic!("no messages")
    };
    assert_eq!(
        messages[0],
        json!({"role": "system", "content": "be brief"})
    );
    assert_eq!(messages[1], json!({"role": "user", "content": "ab"}));
    assert_eq!(messages[2]["tool_calls"][0]["id"], "c");
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]});
    assert_eq!(
        chat(image).err().unwrap().field.as_deref(),
        Some("messages[0].content")
    );
}

#[test]
fn test_limits_go_by_both_names_and_stop_by_both_shapes() {
    let (task, _) = chat(json!({"max_completion_tokens": 9, "stop": "x"})).unwrap();
    assert_eq!(task.max_tokens, 9);
    assert_eq!(task.sampling["stop"], json!(["x"]));
    assert!(chat(json!({"max_completion_tokens": 9, "max_tokens": 9})).is_ok());
    assert!(chat(json!({"max_completion_tokens": 9, "max_tokens": 8})).is_err());
}

#[test]
fn test_no_tools_are_sent_when_none_may_be_chosen() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    assert!(
        chat(json!({"tools": tools}))
            .unwrap()
            .0
            .sampling
            .contains_key("tools")
    );
    assert!(
        !chat(json!({"tools": tools, "tool_choice": "none"}))
            .unwrap()
            .0
            .sampling
            .contains_key("tools")
    );
}

#[test]
fn test_a_completion_takes_one_text() {
    let (task, view) =
        completion(json!({"model": "me/tiny", "prompt": ["x"], "max_tokens": 4})).unwrap();
    assert_eq!(task.input, Input::Prompt("x".to_owned()));
    assert_eq!(task.model_ref.as_deref(), Some("repo:me/tiny"));
    assert_eq!(
        (view.door, view.model.as_str()),
        (Door::Completion, "me/tiny")
    );
    for prompt in [
        json!(["a", "b"]),
        json!([1, 2]),
        json!([[1]]),
        json!(""),
        json!(7),
    ] {
        assert!(
            completion(json!({"model": "m", "prompt": prompt})).is_err(),
            "{prompt}"
        );
    }
    assert!(completion(json!({"model": "m"})).is_err());
    assert!(completion(json!({"prompt": "x"})).is_err());
    assert!(completion(json!({"model": "m", "prompt": "x", "echo": true})).is_err());
    assert!(completion(json!({"model": "m", "prompt": "x", "messages": []})).is_err());
}

#[test]
fn test_headers_are_checked_as_the_fields_they_stand_for() {
    let (mut task, _) = chat(json!({})).unwrap();
    for (name, value) in [
        ("x-orchqueue-priority", "batch"),
        ("x-orchqueue-deadline-ms", "1500"),
        ("x-orchqueue-determinism", "strict"),
        ("x-orchqueue-task-id", ID),
        ("accept", "anything"),
    ] {
        apply_header(&mut task, name, value).unwrap();
    }
    assert_eq!(task.priority.as_deref(), Some("batch"));
    assert_eq!(task.deadline_ms, Some(1500));
    assert_eq!(task.determinism, Some(Level::Strict));
    assert_eq!(task.task_id, parse_uuid(ID));
    let error = apply_header(&mut task, "x-orchqueue-deadline-ms", "soon")
        .err()
        .unwrap();
    assert!(
        error
            .message
            .starts_with("`x-orchqueue-deadline-ms` must be an integer"),
        "{}",
        error.message
    );
}

fn writer(door: Door, include_usage: bool) -> ChunkWriter {
    let view = ChatView {
        door,
        stream: true,
        include_usage,
        model: "tiny".to_owned(),
    };
    ChunkWriter::new(&view, ID, 1_700_000_000)
}

/// The JSON of each chunk; a chunk that is not JSON comes out as its text.
fn chunks(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    let data = |frame: &str| {
        let data = frame.strip_prefix("data: ").unwrap().to_owned();
        serde_json::from_str(&data).unwrap_or_else(|_| Value::from(data))
    };
    text.strip_suffix("\n\n")
        .unwrap()
        .split("\n\n")
        .map(data)
        .collect()
}

#[test]
fn test_a_chat_streams_as_role_deltas_finish_usage_and_done() {
    let mut out = Vec::new();
    let writer = writer(Door::Chat, true);
    writer.open(&mut out);
    writer.token(&mut out, "hm", Channel::Reasoning);
    writer.token(&mut out, "h\n\u{e9}", Channel::Text);
    writer.token(&mut out, r#"[{"index":0,"id":"a"}]"#, Channel::ToolCall);
    writer.close(&mut out, FinishReason::Length, &USAGE);
    let chunks = chunks(&out);
    let deltas: Vec<&Value> = chunks[..5]
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": ""}));
    assert_eq!(*deltas[1], json!({"reasoning_content": "hm"}));
    assert_eq!(*deltas[2], json!({"content": "h\n\u{e9}"}));
    assert_eq!(*deltas[3], json!({"tool_calls": [{"index": 0, "id": "a"}]}));
    assert_eq!(*deltas[4], json!({}));
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(
        chunks[5]["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    );
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[6], "[DONE]");
    assert_eq!(chunks.len(), 7);
    for chunk in &chunks[..6] {
        assert_eq!(chunk["id"], format!("chatcmpl-{ID}"));
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["model"], &chunk["created"]),
            (&json!("tiny"), &json!(1_700_000_000))
        );
    }
    assert_eq!(task_of(chunks[0]["id"].as_str().unwrap()), parse_uuid(ID));
}

#[test]
fn test_a_completion_streams_text_only() {
    let mut out = Vec::new();
    let writer = writer(Door::Completion, false);
    writer.open(&mut out);
    writer.token(&mut out, "hm", Channel::Reasoning);
    writer.token(&mut out, "hi", Channel::Text);
    writer.close(&mut out, FinishReason::Stop, &USAGE);
    let chunks = chunks(&out);
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[0]["choices"][0]["text"], "hi");
    assert_eq!(chunks[1]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[0]["object"], "text_completion");
}

fn whole(door: Door, text: &str, reasoning: &str, tool_calls: &str) -> Value {
    let mut out = Vec::new();
    let answer = Answer {
        text,
        reasoning,
        tool_calls,
        finish_reason: FinishReason::Stop,
        usage: USAGE,
    };
    writer(door, false).whole(&mut out, &answer);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn test_a_whole_answer_has_one_choice_and_its_usage() {
    let body = whole(Door::Chat, "hi", "hm", "");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(
        body["choices"][0]["message"],
        json!({"role": "assistant", "content": "hi", "reasoning_content": "hm"})
    );
    assert_eq!(body["usage"]["total_tokens"], 5);
    let body = whole(
        Door::Chat,
        "",
        "",
        r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]"#,
    );
    assert_eq!(body["choices"][0]["message"]["content"], Value::Null);
    assert_eq!(
        body["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "f"
    );
    let body = whole(Door::Completion, "hi", "", "");
    assert_eq!(
        (&body["object"], &body["choices"][0]["text"]),
        (&json!("text_completion"), &json!("hi"))
    );
}

#[test]
fn test_errors_come_in_openais_envelope() {
    let read = |error: &ErrorBody| -> Value { serde_json::from_slice(&error_body(error)).unwrap() };
    let refused = ErrorBody::from(chat(json!({"top_p": 2})).err().unwrap());
    assert_eq!(
        read(&refused),
        json!({"error": {"message": "`top_p` must be a number from 0 to 1, got: 2",
            "type": "invalid_request_error", "param": "top_p", "code": "INVALID_PARAMS"}})
    );
    for (code, kind) in [
        (Code::Unauthenticated, "authentication_error"),
        (Code::Forbidden, "permission_error"),
        (Code::QuotaExceeded, "rate_limit_error"),
        (Code::WorkerReset, "server_error"),
        (Code::NotFound, "invalid_request_error"),
    ] {
        assert_eq!(read(&ErrorBody::new(code, "x"))["error"]["type"], kind);
    }
    let mut out = Vec::new();
    let mut error = ErrorBody::new(Code::WorkerReset, "gone").with_hint("again");
    error.correlation_id = Some("c1".to_owned());
    error_chunk(&mut out, &error);
    assert_eq!(chunks(&out)[0]["error"]["message"], "gone (hint: again)");
    assert_eq!(chunks(&out)[0]["error"]["correlation_id"], "c1");
}

proptest! {
    #[test]
    fn test_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = parse_chat(&bytes);
        let _ = parse_completion(&bytes);
    }

    #[test]
    fn test_text_comes_back_from_its_chunk(text in any::<String>()) {
        let mut out = Vec::new();
        writer(Door::Chat, false).token(&mut out, &text, Channel::Text);
        let read = chunks(&out);
        prop_assert_eq!(read[0]["choices"][0]["delta"]["content"].as_str(), Some(text.as_str()));
    }

    #[test]
    fn test_any_tool_call_text_makes_a_chunk_and_a_body(text in any::<String>()) {
        let mut out = Vec::new();
        writer(Door::Chat, false).token(&mut out, &text, Channel::ToolCall);
        prop_assert!(chunks(&out)[0]["choices"][0]["delta"]["tool_calls"].is_array());
        prop_assert!(whole(Door::Chat, "", "", &text)["choices"][0]["message"].is_object());
    }
}
