use proptest::prelude::*;
use serde_json::{Value, json};

use super::validate::KNOWN;
use super::*;
use crate::digest::request_digest;

fn parse(body: Value) -> Result<TaskRequest, ParamError> {
    parse_task(body.to_string().as_bytes())
}

/// A body with one field changed.
fn with(field: &str, value: Value) -> Result<TaskRequest, ParamError> {
    let mut body = json!({"prompt": "hi", "seed": 1});
    body[field] = value;
    parse(body)
}

// req: ORCH-4013
#[test]
fn test_a_prompt_alone_is_a_completion_with_every_default() {
    let task = parse(json!({"prompt": "hi"})).unwrap();
    assert_eq!(task.workload, Workload::Completion);
    assert_eq!(
        (task.max_tokens, task.kv_hint, task.reuse),
        (256, KvHint::Reuse, Reuse::None)
    );
    assert_eq!(
        Value::from(task.effective(7)),
        json!({
            "workload": "completion", "prompt": "hi", "max_tokens": 256, "seed": 7, "ignore_eos": false, "stop": [],
            "sampler_profile_version": "v1", "temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05,
            "typical_p": 1.0, "repeat_penalty": 1.0, "repeat_last_n": 64, "presence_penalty": 0.0,
            "frequency_penalty": 0.0
        })
    );
}

#[test]
fn test_messages_alone_are_a_chat() {
    let task = parse(json!({"messages": [{"role": "user", "content": "hello"}]})).unwrap();
    assert_eq!(task.workload, Workload::Chat);
    assert_eq!(task.input_bytes(), 5);
    assert!(task.effective(0).contains_key("messages"));
}

#[test]
fn test_every_field_of_the_contract_is_taken() {
    let task = parse(json!({
        "task_id": "3F0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11", "session_id": "5d2f7a9c-1c2b-4d3e-8f4a-6b7c8d9e0f1a",
        "workload": "chat", "messages": [{"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "ok", "name": "f"}],
        "model_ref": "repo:me/model", "engine": "llamacpp", "ctx": 512, "priority": "batch", "determinism": "strict",
        "seed": 2_147_483_647, "max_tokens": 1, "expected_tokens": 9, "deadline_ms": 1, "on_disconnect": "keep",
        "kv_hint": "cold", "reuse": "cache", "receipt": "signed", "wait": true, "sampler_profile_version": "v1",
        "temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1, "repeat_penalty": 1.1,
        "repeat_last_n": 0, "presence_penalty": -2, "frequency_penalty": 2, "stop": ["\n"], "ignore_eos": true,
        "logit_bias": {"0": -100, "4294967295": 0.5}, "n": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": true}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}
    }))
    .unwrap();
    assert_eq!(task.reuse, Reuse::Cache);
    assert_eq!(task.determinism, Some(Level::Strict));
    assert_eq!(task.deadline_ms, Some(1));
    let effective = task.effective(1);
    let beyond: Vec<_> = effective
        .keys()
        .filter(|name| !KNOWN.contains(&name.as_str()))
        .collect();
    assert!(beyond.is_empty(), "{beyond:?}");
    assert_eq!(effective.len(), 19);
}

// req: ORCH-4008, ORCH-4012
#[test]
fn test_values_outside_the_contract_are_refused_with_their_field() {
    for (field, value) in [
        ("task_id", json!("7")),
        ("session_id", json!(7)),
        ("model_ref", json!("../etc")),
        ("model_ref", json!("sha256:abc")),
        ("model_ref", json!("repo:owner")),
        ("model_ref", json!("")),
        ("engine", json!("Llama")),
        ("ctx", json!(0)),
        ("priority", json!("")),
        ("priority", json!("a".repeat(33))),
        ("prompt", json!("")),
        ("prompt", json!(["a"])),
        ("workload", json!("chatt")),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("9")),
        ("expected_tokens", json!(0)),
        ("deadline_ms", json!(0)),
        ("deadline_ms", json!(604_800_001)),
        ("on_disconnect", json!("die")),
        ("kv_hint", json!(null)),
        ("reuse", json!(true)),
        ("receipt", json!("Signed")),
        ("wait", json!(1)),
        ("determinism", json!("loose")),
        ("seed", json!(-1)),
        ("seed", json!(2_147_483_648_u32)),
        ("sampler_profile_version", json!("v2")),
        ("temperature", json!(2.01)),
        ("top_k", json!(1.5)),
        ("stop", json!("x")),
        ("stop", json!([""])),
        ("stop", json!(vec!["x"; 17])),
        ("stop", json!(["x".repeat(257)])),
        ("ignore_eos", json!(0)),
        ("logit_bias", json!({"01": 1})),
        ("logit_bias", json!({"1": 101})),
        ("logit_bias", json!([[1, 1]])),
        ("response_format", json!({"type": "json_schema"})),
        ("response_format", json!("text")),
        ("n", json!(2)),
    ] {
        let error = with(field, value.clone()).err().unwrap();
        assert_eq!(error.field.as_deref(), Some(field), "{value}");
        assert!(
            error.message.contains(&format!("`{field}`")),
            "{}",
            error.message
        );
    }
}

#[test]
fn test_a_message_says_what_was_got_and_what_is_allowed_and_never_the_content() {
    let error = with("top_p", json!("hush hush")).err().unwrap();
    assert_eq!(
        error.message,
        "`top_p` must be a number from 0 to 1, got: a string"
    );
    let error = with("seed", json!(-5)).err().unwrap();
    assert_eq!(
        error.message,
        "`seed` must be an integer from 0 to 2147483647, got: -5"
    );
    let error = with("kv_hint", json!("resue")).err().unwrap();
    assert_eq!(
        error.message,
        "`kv_hint` must be one of `reuse`, `cold`, got: another string"
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean `reuse`?"));
}

// req: ORCH-4008
#[test]
fn test_an_unknown_field_comes_with_a_suggestion() {
    let error = with("max_token", json!(1)).err().unwrap();
    assert_eq!(error.message, "unknown field `max_token`");
    assert_eq!(error.hint.as_deref(), Some("did you mean `max_tokens`?"));
    let body = ErrorBody::from(error);
    assert_eq!(body.reason.as_deref(), Some("unknown_field"));
    assert_eq!(body.param.as_deref(), Some("max_token"));
    let error = with("stream", json!(true)).err().unwrap();
    assert!(error.hint.unwrap().contains("text/event-stream"));
}

#[test]
fn test_inputs_must_be_one_and_fit_the_workload() {
    let message = json!([{"role": "user", "content": "x"}]);
    for body in [
        json!({}),
        json!({"workload": "chat"}),
        json!({"workload": "chat", "prompt": "x"}),
        json!({"workload": "embedding", "prompt": "x"}),
        json!({"prompt": "x", "messages": message}),
        json!({"workload": "chat", "prompt": "x", "messages": message}),
        json!({"inputs": ["x"]}),
        json!({"workload": "embedding", "inputs": []}),
        json!({"workload": "embedding", "inputs": [""]}),
        json!({"messages": []}),
        json!({"messages": [1]}),
        json!({"messages": [{"content": "x"}]}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "assistant"}]}),
        json!({"messages": [{"role": "tool", "tool_calls": []}]}),
        json!({"messages": [{"role": "developer", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
        json!({"messages": [{"role": "user", "contents": "x"}]}),
        json!({"messages": [{"role": "user", "tool_calls": [{"id": "1"}]}]}),
        json!({"prompt": "x", "tools": []}),
        json!({"messages": message, "tools": [{"type": "function", "function": {}}]}),
    ] {
        assert!(parse(body.clone()).is_err(), "{body}");
    }
    assert_eq!(
        parse(json!({"workload": "rerank", "inputs": ["a", "bc"]}))
            .unwrap()
            .input_bytes(),
        3
    );
}

#[test]
fn test_reuse_needs_a_seed() {
    let error = parse(json!({"prompt": "x", "reuse": "coalesce"}))
        .err()
        .unwrap();
    assert_eq!(error.field.as_deref(), Some("reuse"));
}

#[test]
fn test_the_body_digest_sees_the_body_and_neither_key_order_nor_wait_nor_the_receipts_form() {
    let digest = |text: &str| parse_task(text.as_bytes()).unwrap().body_digest();
    let one = digest(r#"{"prompt":"a","seed":1}"#);
    assert_eq!(
        one,
        digest(r#"{"seed":1,"prompt":"a","wait":true,"receipt":"signed"}"#)
    );
    for other in [
        r#"{"prompt":"a"}"#,
        r#"{"prompt":"a","seed":2}"#,
        r#"{"prompt":"b","seed":1}"#,
        r#"{"prompt":"a","seed":1,"priority":"batch"}"#,
        r#"{"prompt":"a","seed":1,"deadline_ms":5}"#,
        r#"{"prompt":"a","seed":1,"reuse":"cache"}"#,
        r#"{"prompt":"a","seed":1,"kv_hint":"cold"}"#,
        r#"{"prompt":"a","seed":1,"on_disconnect":"keep"}"#,
        r#"{"prompt":"a","seed":1,"model_ref":"m"}"#,
        r#"{"prompt":"a","seed":1,"session_id":"5d2f7a9c-1c2b-4d3e-8f4a-6b7c8d9e0f1a"}"#,
    ] {
        assert_ne!(one, digest(other), "{other}");
    }
}

// req: ORCH-4014
#[test]
fn test_the_request_digest_covers_no_id_and_no_priority() {
    let digest = |body: Value| request_digest(&parse(body).unwrap().effective(1));
    let one = digest(json!({"prompt": "a"}));
    assert_eq!(
        one,
        digest(
            json!({"prompt": "a", "priority": "batch", "deadline_ms": 9, "model_ref": "m", "temperature": 0.70,
            "task_id": "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11", "typical_p": 1})
        )
    );
    assert_ne!(one, digest(json!({"prompt": "a", "stop": ["x"]})));
}

fn any_field() -> impl Strategy<Value = (String, Value)> {
    let name = prop_oneof![
        prop::sample::select(KNOWN).prop_map(str::to_owned),
        any::<String>(),
    ];
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from),
        Just(json!([{"role": "user", "content": "x"}])),
        Just(json!({"type": "text"})),
    ];
    (name, value)
}

proptest! {
    #[test]
    fn test_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_task(&bytes);
    }

    #[test]
    fn test_arbitrary_fields_never_panic_and_what_is_taken_has_a_digest(entries in prop::collection::vec(any_field(), 0..6)) {
        let body = Value::Object(entries.into_iter().collect());
        if let Ok(task) = parse(body) {
            prop_assert_ne!(request_digest(&task.effective(0)), request_digest(&task.effective(1)));
            prop_assert_eq!(task.body_digest(), task.clone().body_digest());
        }
    }

    #[test]
    fn test_a_prompt_comes_out_as_it_went_in(prompt in "\\PC{1,40}") {
        let task = parse(json!({"prompt": prompt})).unwrap();
        prop_assert_eq!(task.input_bytes(), prompt.len());
        prop_assert_eq!(&task.effective(0)["prompt"], &Value::from(prompt));
    }
}
