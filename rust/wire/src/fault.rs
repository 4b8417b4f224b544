//! What went wrong on the engine's side, sorted into the few classes that the daemon acts on.
//!
//! This module knows how engines report errors (in the stream, as a JSON body, as an SSE body with an error status)
//! but not what the client is told: that is the daemon's table.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::framing::{Framer, Framing};
use crate::grammar::Grammar;
use crate::scan::{Kind, Span, parse_u32};
use crate::text::TextDecoder;

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFault {
    /// What to do about it.
    pub class: FaultClass,
    /// For people; the engine's own words where it gave some, at most 500 characters.
    pub message: String,
}

/// Kinds of faults that call for different reactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultClass {
    /// The engine refuses this request, and every replica would.
    InvalidRequest,
    /// The prompt or the answer does not fit the engine's context.
    ContextOverflow,
    /// The engine refuses our key.
    Unauthenticated,
    /// The engine does not know the route or the model.
    NotFound,
    /// The engine is full or still loading.
    Busy,
    /// The engine broke.
    Engine,
    /// The stream broke, or was not what the grammar describes.
    Transport,
}

const MAX_MESSAGE_CHARS: usize = 500;

impl EngineFault {
    pub(crate) fn new(class: FaultClass, message: String) -> Self {
        let end = message.char_indices().nth(MAX_MESSAGE_CHARS);
        let message = match end {
            Some((end, _)) => message[..end].to_owned(),
            None => message,
        };
        Self { class, message }
    }
}

/// Reads the answer to a request that the engine refused before it streamed.
#[must_use]
pub fn classify_response(grammar: &Grammar, status: u16, body: &[u8]) -> EngineFault {
    let mut found = Vec::new();
    if let Some(event) = error_event(body)
        && grammar.paths.extract(&event, &mut found).is_ok()
        && let Some(fault) = error_in(grammar, &event, &found, Some(status))
    {
        return fault;
    }
    let message = format!("the engine answered with status: {status}");
    EngineFault::new(class_of_status(u32::from(status)), message)
}

/// The first event of a body that is plain JSON or an SSE stream; Triton answers errors with the latter.
fn error_event(body: &[u8]) -> Option<Vec<u8>> {
    let body = body.trim_ascii();
    if body.starts_with(b"{") {
        return Some(body.to_vec());
    }
    let mut framer = Framer::new(Framing::Sse, body.len());
    let mut first = None;
    let fed = framer.feed(body, |event| {
        first = Some(event.to_vec());
        ControlFlow::Break(())
    });
    fed.ok()?;
    first.or_else(|| Some(framer.rest().to_vec()))
}

/// The fault that an event reports, if it is an error. `status` is that of the response when it was not a success.
pub(crate) fn error_in(
    grammar: &Grammar,
    event: &[u8],
    found: &[Span],
    status: Option<u16>,
) -> Option<EngineFault> {
    let rule = &grammar.error;
    rule.pointer.first(found)?;
    let message = rule.message.all(found).find(|span| span.is_text());
    let message = match message {
        Some(span) => string(span, event),
        None => "the engine reported an error without a message".to_owned(),
    };
    let kind = rule.kind.first(found).map(|span| string(span, event));
    let code = rule
        .code
        .first(found)
        .and_then(|span| parse_u32(span.bytes(event)));
    let by_message = rule
        .classes_by_message
        .iter()
        .find(|(part, _)| message.contains(part.as_str()));
    let class = by_message
        .map(|(_, class)| *class)
        .or_else(|| rule.classes.get(kind.as_deref()?).copied())
        .or_else(|| status.map(u32::from).or(code).map(class_of_status))
        .unwrap_or(FaultClass::Engine);
    Some(EngineFault::new(class, message))
}

fn class_of_status(status: u32) -> FaultClass {
    match status {
        401 | 403 => FaultClass::Unauthenticated,
        404 => FaultClass::NotFound,
        408 | 429 | 503 => FaultClass::Busy,
        400..=499 => FaultClass::InvalidRequest,
        _ => FaultClass::Engine,
    }
}

/// A value as text: strings decoded, anything else as it was written.
pub(crate) fn string(span: Span, event: &[u8]) -> String {
    let mut text = String::new();
    let mut decoder = TextDecoder::default();
    decoder.push(span.bytes(event), span.kind == Kind::Escaped, &mut text);
    decoder.flush(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::{EngineFault, FaultClass, classify_response};
    use crate::grammar::Grammar;
    use serde_json::json;

    fn grammar() -> Grammar {
        let document = json!({
            "framing": "sse", "text": {"text": "/content"}, "end": {"eof": true},
            "error": {"pointer": "/error", "message": ["/error/message", "/error"], "kind": ["/error/type", "/error_type"], "code": "/error/code"},
            "classes": {"exceed_context_size_error": "context_overflow", "overloaded": "busy"},
            "classes_by_message": {"maximum context length": "context_overflow"}
        });
        Grammar::parse(&document.to_string()).unwrap()
    }

    fn classify(status: u16, body: &str) -> (FaultClass, String) {
        let EngineFault { class, message } = classify_response(&grammar(), status, body.as_bytes());
        (class, message)
    }

    #[test]
    fn test_the_kind_says_more_than_the_status() {
        let body =
            r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}"#;
        assert_eq!(
            classify(400, body),
            (FaultClass::ContextOverflow, "too long".to_owned())
        );
    }

    #[test]
    fn test_the_message_says_more_than_the_kind() {
        let body = r#"{"error":{"message":"maximum context length is 8","type":"overloaded"}}"#;
        assert_eq!(classify(400, body).0, FaultClass::ContextOverflow);
    }

    #[test]
    fn test_the_status_decides_where_nothing_else_does() {
        for (status, class) in [
            (400, FaultClass::InvalidRequest),
            (422, FaultClass::InvalidRequest),
            (401, FaultClass::Unauthenticated),
            (404, FaultClass::NotFound),
            (429, FaultClass::Busy),
            (503, FaultClass::Busy),
            (500, FaultClass::Engine),
        ] {
            for body in ["", "<html>", "[1]", "{", r#"{"detail":"Not Found"}"#] {
                let message = format!("the engine answered with status: {status}");
                assert_eq!(classify(status, body), (class, message), "{body}");
            }
            assert_eq!(
                classify(status, r#"{"error":"words"}"#),
                (class, "words".to_owned())
            );
        }
    }

    #[test]
    fn test_an_error_status_with_an_sse_body() {
        for body in ["data: {\"error\":\"no\"}\n\n", "data:{\"error\":\"no\"}"] {
            assert_eq!(
                classify(400, body),
                (FaultClass::InvalidRequest, "no".to_owned())
            );
        }
    }

    #[test]
    fn test_long_messages_are_cut_at_a_character() {
        let body = json!({"error": "é".repeat(2000)}).to_string();
        assert_eq!(classify(400, &body).1, "é".repeat(500));
    }
}
