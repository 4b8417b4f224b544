//! A task's events as OpenAI's chunks, bodies and errors.
//!
//! A chunk is `data: <json>` and an empty line; the stream closes with `data: [DONE]`. After the first chunk an error is
//! an error chunk and the stream ends without `[DONE]`.

use serde_json::{Value, json};

use super::{ChatView, Door, tool_calls};
use crate::errors::{Code, ErrorBody};
use crate::jcs;
use crate::vocabulary::{Channel, FinishReason, Usage};

/// What closes a stream that came to its end.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Writes the chunks of one completion; what they share is written once.
pub struct ChunkWriter {
    door: Door,
    include_usage: bool,
    /// `"id":…,"object":…,"created":…,"model":…,` of a chunk.
    head: Vec<u8>,
    /// The same of a whole body.
    body_head: Vec<u8>,
}

/// A finished task's output, for a body that comes in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Channel 0.
    pub text: &'a str,
    /// Channel 1.
    pub reasoning: &'a str,
    /// Channel 2.
    pub tool_calls: &'a str,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
}

impl ChunkWriter {
    /// For the task with this id text, created at this Unix second.
    pub fn new(view: &ChatView, task_id: &str, created_s: u64) -> Self {
        let (id, object, chunk) = match view.door {
            Door::Chat => ("chatcmpl-", "chat.completion", "chat.completion.chunk"),
            Door::Completion => ("cmpl-", "text_completion", "text_completion"),
        };
        let head = |object: &str| {
            let mut head = Vec::with_capacity(160);
            head.extend_from_slice(b"{\"id\":");
            jcs::write_string(&mut head, &format!("{id}{task_id}"));
            head.extend_from_slice(
                format!(",\"object\":\"{object}\",\"created\":{created_s},\"model\":").as_bytes(),
            );
            jcs::write_string(&mut head, &view.model);
            head.push(b',');
            head
        };
        Self {
            door: view.door,
            include_usage: view.include_usage,
            head: head(chunk),
            body_head: head(object),
        }
    }

    /// The chunk that opens a chat. A completion has none.
    pub fn open(&self, out: &mut Vec<u8>) {
        if self.door == Door::Chat {
            self.choice(out, None, |out| {
                out.extend_from_slice(b"\"delta\":{\"role\":\"assistant\",\"content\":\"\"}")
            });
        }
    }

    /// The chunk of one token event. A completion shows channel 0 only.
    pub fn token(&self, out: &mut Vec<u8>, text: &str, channel: Channel) {
        match (self.door, channel) {
            (Door::Completion, Channel::Text) => self.choice(out, None, |out| {
                out.extend_from_slice(b"\"text\":");
                jcs::write_string(out, text);
            }),
            (Door::Completion, _) => {}
            (Door::Chat, Channel::Text) => {
                self.delta(out, "content", |out| jcs::write_string(out, text))
            }
            (Door::Chat, Channel::Reasoning) => {
                self.delta(out, "reasoning_content", |out| jcs::write_string(out, text));
            }
            (Door::Chat, Channel::ToolCall) => {
                let deltas = tool_calls::deltas(text).to_string();
                self.delta(out, "tool_calls", |out| {
                    out.extend_from_slice(deltas.as_bytes())
                });
            }
        }
    }

    /// The finish chunk, the usage chunk where it was asked for, and `[DONE]`.
    pub fn close(&self, out: &mut Vec<u8>, reason: FinishReason, usage: &Usage) {
        let empty: &[u8] = match self.door {
            Door::Chat => b"\"delta\":{}",
            Door::Completion => b"\"text\":\"\"",
        };
        self.choice(out, Some(reason), |out| out.extend_from_slice(empty));
        if self.include_usage {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&self.head);
            out.extend_from_slice(
                format!("\"choices\":[],\"usage\":{}}}\n\n", usage_value(usage)).as_bytes(),
            );
        }
        out.extend_from_slice(DONE);
    }

    /// The whole answer as one body.
    pub fn whole(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        let mut choice =
            json!({"index": 0, "finish_reason": answer.finish_reason, "logprobs": null});
        match self.door {
            Door::Completion => choice["text"] = Value::from(answer.text),
            Door::Chat => choice["message"] = whole_message(answer),
        }
        out.extend_from_slice(&self.body_head);
        let usage = usage_value(&answer.usage);
        out.extend_from_slice(format!("\"choices\":[{choice}],\"usage\":{usage}}}").as_bytes());
    }

    fn delta(&self, out: &mut Vec<u8>, member: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.choice(out, None, |out| {
            out.extend_from_slice(b"\"delta\":{\"");
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(b"\":");
            value(out);
            out.push(b'}');
        });
    }

    fn choice(
        &self,
        out: &mut Vec<u8>,
        reason: Option<FinishReason>,
        member: impl FnOnce(&mut Vec<u8>),
    ) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"\"choices\":[{\"index\":0,");
        member(out);
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        match reason {
            None => out.extend_from_slice(b"null"),
            Some(reason) => jcs::write_string(out, reason.as_str()),
        }
        out.extend_from_slice(b"}]}\n\n");
    }
}

fn whole_message(answer: &Answer<'_>) -> Value {
    let calls = tool_calls::finished(answer.tool_calls);
    let mut message = json!({"role": "assistant", "content": answer.text});
    if answer.text.is_empty() && !calls.is_empty() {
        message["content"] = Value::Null;
    }
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = Value::from(answer.reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::from(calls);
    }
    message
}

fn usage_value(usage: &Usage) -> Value {
    let total = u64::from(usage.tokens_in) + u64::from(usage.tokens_out);
    let mut value = json!({"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out, "total_tokens": total});
    if let Some(cached) = usage.tokens_cached {
        value["prompt_tokens_details"] = json!({"cached_tokens": cached});
    }
    value
}

/// An error answer in OpenAI's envelope. It has no place for a hint, so the message says it.
pub fn error_body(error: &ErrorBody) -> Vec<u8> {
    error_value(error).to_string().into_bytes()
}

/// The same as the last chunk of a stream.
pub fn error_chunk(out: &mut Vec<u8>, error: &ErrorBody) {
    out.extend_from_slice(format!("data: {}\n\n", error_value(error)).as_bytes());
}

fn error_value(error: &ErrorBody) -> Value {
    let kind = match error.code {
        Code::Unauthenticated => "authentication_error",
        Code::Forbidden | Code::UntrustedArtifact => "permission_error",
        Code::AdmissionReject | Code::QueueFullDropLru | Code::QuotaExceeded => "rate_limit_error",
        code if code.http_status() >= 500 => "server_error",
        _ => "invalid_request_error",
    };
    let message = match &error.hint {
        Some(hint) => format!("{} (hint: {hint})", error.message),
        None => error.message.clone(),
    };
    let mut value = json!({"error": {"message": message, "type": kind, "param": error.param, "code": error.code}});
    if let Some(id) = &error.correlation_id {
        value["error"]["correlation_id"] = Value::from(id.as_str());
    }
    value
}
