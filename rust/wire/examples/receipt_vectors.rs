//! Writes the receipt test vectors of `contracts/receipts/`: `cargo run -p orchqueue-wire --example receipt_vectors`.
//!
//! Everything in a vector follows from its request, its events and its key, so a second party can recompute all of it;
//! `contracts/receipts/README.md` says how. `tests/receipt_vectors.rs` holds the committed files against this code.

use std::error::Error;
use std::path::Path;

use orchqueue_wire::digest::{RunningDigest, channel_switch, request_digest};
use orchqueue_wire::receipt::{
    Receipt, ReceiptAttempt, ReceiptKey, ReceiptTimes, identity, sign, verify,
};
use orchqueue_wire::request::{Level, TaskRequest, default_seed, format_uuid, parse_task};
use orchqueue_wire::{Channel, FinishReason, Usage, jcs};
use serde_json::{Map, Value, json};

/// Where the vectors are committed.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/receipts");

/// The secret of the test key: the bytes 0 to 31.
const SECRET: [u8; 32] = {
    let mut secret = [0; 32];
    let mut index = 0;
    while index < 32 {
        secret[index] = index as u8;
        index += 1;
    }
    secret
};

/// What a vector is made from.
struct Case {
    name: &'static str,
    request: Value,
    events: Vec<(Channel, &'static str)>,
    determinism: Level,
    finish_reason: FinishReason,
    usage: Usage,
    token_ids: Option<Vec<u32>>,
    attempts: Vec<(&'static str, &'static str)>,
}

// Unused where a test includes this file for `files`.
#[allow(dead_code)]
fn main() -> Result<(), Box<dyn Error>> {
    for (name, content) in files()? {
        std::fs::write(Path::new(FOLDER).join(name), content)?;
    }
    Ok(())
}

/// Every file of the folder that is generated: its name and its content.
pub fn files() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut files = Vec::new();
    for case in [completion(), chat(), empty()] {
        let vector = vector(&case)?;
        files.push((
            format!("{}.json", case.name),
            serde_json::to_string_pretty(&vector)? + "\n",
        ));
    }
    let canonical = serde_json::to_string_pretty(&canonical_forms()?)? + "\n";
    files.push(("jcs.json".to_owned(), canonical));
    Ok(files)
}

fn vector(case: &Case) -> Result<Value, Box<dyn Error>> {
    let task = parse_task(case.request.to_string().as_bytes())?;
    let task_id = task.task_id.ok_or("a vector's request names its task")?;
    let seed = task.seed.unwrap_or_else(|| default_seed(&task_id));
    let effective = task.effective(seed);
    let r = request_digest(&effective);
    let mut transcript = Transcript::new(&r);
    for (channel, text) in &case.events {
        transcript.push(*channel, text);
    }
    let key = ReceiptKey::from_secret(&SECRET);
    let receipt = receipt(case, &task, seed, &r, &transcript);
    let signed = sign(&receipt.to_map(), &key);
    verify(&signed, &key.public())?;
    let events: Vec<Value> = case
        .events
        .iter()
        .map(|(channel, text)| json!({"c": channel.number(), "t": text}))
        .collect();
    Ok(json!({
        "name": case.name,
        "key": {"secret_hex": hex::encode(SECRET), "public_hex": hex::encode(key.public()), "key_id": key.id()},
        "request": case.request,
        "effective": effective,
        "request_digest": hex::encode(r),
        "events": events,
        "output_hex": hex::encode(&transcript.output),
        "digests": transcript.digests,
        "terminal_id": transcript.digest.event_id(true).to_string(),
        "receipt": signed,
    }))
}

/// The output bytes as they grow, and D(k) after every event.
struct Transcript {
    digest: RunningDigest,
    output: Vec<u8>,
    channel: Channel,
    digests: Vec<Value>,
}

impl Transcript {
    fn new(r: &[u8; 32]) -> Self {
        let mut new = Self {
            digest: RunningDigest::new(r),
            output: Vec::new(),
            channel: Channel::Text,
            digests: Vec::new(),
        };
        new.note();
        new
    }

    fn push(&mut self, channel: Channel, text: &str) {
        let mut bytes = Vec::new();
        if channel != self.channel {
            bytes.extend_from_slice(&channel_switch(channel.number()));
            self.channel = channel;
        }
        bytes.extend_from_slice(text.as_bytes());
        self.digest.update(&bytes);
        self.output.extend_from_slice(&bytes);
        self.note();
    }

    fn note(&mut self) {
        self.digests.push(json!({
            "k": self.digest.k(),
            "digest": hex::encode(self.digest.read()),
            "event_id": self.digest.event_id(false).to_string(),
        }));
    }
}

fn receipt(
    case: &Case,
    task: &TaskRequest,
    seed: u32,
    r: &[u8; 32],
    transcript: &Transcript,
) -> Receipt {
    let identity_fields = identity_fields();
    let attempt = |(replica, outcome): &(&str, &str)| ReceiptAttempt {
        replica_id: (*replica).to_owned(),
        outcome: (*outcome).to_owned(),
    };
    Receipt {
        task_id: task.task_id.as_ref().map(format_uuid).unwrap_or_default(),
        request_digest: hex::encode(r),
        output_digest: hex::encode(transcript.digest.read()),
        output_bytes: transcript.digest.k(),
        identity: hex::encode(identity(&identity_fields)),
        identity_fields,
        seed,
        usage: case.usage,
        finish_reason: case.finish_reason,
        determinism: case.determinism,
        attempts: case.attempts.iter().map(attempt).collect(),
        token_ids: case.token_ids.clone(),
        times: ReceiptTimes {
            received_ms: 1_763_632_800_000,
            started_ms: Some(1_763_632_800_004),
            first_token_ms: (!case.events.is_empty()).then_some(1_763_632_800_019),
            ended_ms: 1_763_632_800_150,
        },
        queue_position: Some(3),
    }
}

fn identity_fields() -> Map<String, Value> {
    Map::from_iter([
        ("engine".to_owned(), json!("llamacpp")),
        ("build".to_owned(), json!("xllamacpp 2026.10.11549")),
        (
            "model_digest".to_owned(),
            json!(format!("sha256:{}", "5a".repeat(32))),
        ),
        ("quant".to_owned(), json!("F16")),
        ("ctx".to_owned(), json!(512)),
        ("sampler_profile_version".to_owned(), json!("v1")),
        ("device_class".to_owned(), json!("cpu:avx2,fma")),
        (
            "flags".to_owned(),
            json!({"flash_attn": false, "n_batch": 2048, "n_parallel": 1, "n_ubatch": 512}),
        ),
    ])
}

/// Defaults only: the seed follows from the task id.
fn completion() -> Case {
    Case {
        name: "completion",
        request: json!({"task_id": "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11", "prompt": "Name three colours."}),
        events: vec![
            (Channel::Text, "Red,"),
            (Channel::Text, " r\u{f6}d and "),
            (Channel::Text, "\u{1f7e5}.\n"),
        ],
        determinism: Level::Strict,
        finish_reason: FinishReason::Stop,
        usage: Usage {
            tokens_in: 5,
            tokens_out: 9,
            tokens_cached: Some(0),
        },
        token_ids: None,
        attempts: vec![("tiny-0", "finished")],
    }
}

/// All three channels, tools, and a replica that died on the way.
fn chat() -> Case {
    Case {
        name: "chat",
        request: json!({
            "task_id": "00000000-0000-0000-0000-000000000000",
            "workload": "chat",
            "messages": [
                {"role": "system", "content": "Use the tool."},
                {"role": "user", "content": "2 \u{d7} 21 = ?"}
            ],
            "tools": [{"type": "function", "function": {"name": "multiply", "parameters": {"type": "object"}}}],
            "seed": 7,
            "max_tokens": 64,
            "temperature": 0.25,
            "determinism": "strict"
        }),
        events: vec![
            (Channel::Reasoning, "Multiply,"),
            (Channel::Reasoning, " then say it."),
            (
                Channel::ToolCall,
                "[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"multiply\",\"arguments\":\"{\\\"a\\\":2,\\\"b\\\":21}\"}}]",
            ),
            (Channel::Text, "42"),
        ],
        determinism: Level::Strict,
        finish_reason: FinishReason::ToolCalls,
        usage: Usage {
            tokens_in: 31,
            tokens_out: 24,
            tokens_cached: None,
        },
        token_ids: None,
        attempts: vec![("tiny-0", "failed"), ("tiny-1", "finished")],
    }
}

/// No output at all, and a request that is hard on a canonical form.
fn empty() -> Case {
    Case {
        name: "empty",
        request: json!({
            "task_id": "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "prompt": "\"\\\t\u{7f}\u{20ac}\u{1f600}",
            "seed": 2_147_483_647,
            "max_tokens": 1,
            "temperature": 0,
            "top_p": 1.0,
            "min_p": 0.0001,
            "repeat_penalty": 1.1,
            "stop": ["\n\n", "END"],
            "ignore_eos": true,
            "logit_bias": {"10": -100, "9": 0.5},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"\u{fb33}": 4.35, "\u{1f600}": 0.000_123, "\u{20ac}": 123_456_789_012.5, "a": [null, true]}
            },
            "determinism": "best_effort"
        }),
        events: Vec::new(),
        determinism: Level::BestEffort,
        finish_reason: FinishReason::Length,
        usage: Usage {
            tokens_in: 8,
            tokens_out: 1,
            tokens_cached: None,
        },
        token_ids: Some(vec![2]),
        attempts: vec![("tiny-0", "finished")],
    }
}

/// Values and their canonical form, to check an RFC 8785 library against.
fn canonical_forms() -> Result<Value, Box<dyn Error>> {
    let values = [
        json!({"\u{fb33}": 1, "\u{1f600}": 2, "\u{20ac}": 3, "\u{f6}": 4, "\u{80}": 5, "a": 6, "B": 7, "": 8}),
        json!([
            0.1,
            1e21,
            1e-7,
            0.000_001,
            5e-324,
            1.797_693_134_862_315_7e308,
            4.5,
            -0.0,
            333_333_333.333_333_3
        ]),
        json!([
            0,
            -1,
            9_007_199_254_740_991_i64,
            -9_007_199_254_740_991_i64,
            0.300_000_000_000_000_04
        ]),
        json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}\u{10ffff}"),
        json!({"nested": {"b": [{}, []], "a": null}, "literals": [true, false, null]}),
    ];
    let forms: Result<Vec<Value>, _> = values
        .into_iter()
        .map(|value| {
            String::from_utf8(jcs::to_vec(&value))
                .map(|text| json!({"canonical": text, "value": value}))
        })
        .collect();
    Ok(Value::Array(forms?))
}
