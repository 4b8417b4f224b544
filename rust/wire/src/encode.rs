//! The frozen SSE framing of OrchQueue v1: events in, frame bytes out.
//!
//! One frame is `event: <name>`, an `id:` on `token` and on the terminal, one `data:` line of JSON, an empty line. Frames
//! are appended to a buffer that the caller owns, so a token costs no allocation once the buffer has grown.

use serde::Serialize;

use crate::digest::EventId;
use crate::errors::{Code, ErrorBody};
use crate::jcs;
use crate::request::Level;
use crate::vocabulary::{FinishReason, Usage};

/// A comment that keeps idle proxies from closing the connection.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Data of the `started` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The task, as a hyphenated uuid.
    pub task_id: String,
    /// How many tasks are dispatched before this one.
    pub queue_position: u64,
    /// When the task is expected to start, in milliseconds from now; unknown until the pool has served something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_start_ms: Option<u64>,
    /// The level that is kept.
    pub determinism: Level,
    /// The identity of the replica set, in hex, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_set: Option<String>,
    /// The byte that a resumed stream goes on after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
}

/// One `token` event.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// The text that arrived.
    pub text: &'a str,
    /// Its number within this transcript.
    pub i: u64,
    /// Its channel; 0 is left out on the wire.
    pub channel: u8,
    /// Its id.
    pub id: EventId,
}

/// Data of the `end` event. `output` is for workloads that stream no text; `receipt` is `receipt::Receipt` or its map.
#[derive(Clone, Debug, Serialize)]
pub struct End<'a, R: Serialize> {
    /// Tokens decoded.
    pub tokens_out: u32,
    /// Milliseconds from the start of the first attempt to the end.
    pub decode_ms: u64,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// Embeddings or scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<&'a serde_json::Value>,
    /// The proof of what was streamed.
    pub receipt: R,
}

/// Appends a `started` frame. It carries no id: there is nothing to resume from yet.
pub fn started(out: &mut Vec<u8>, started: &Started) {
    frame(out, "started", None, started);
}

/// Appends a `token` frame.
pub fn token(out: &mut Vec<u8>, token: &Token<'_>) {
    out.extend_from_slice(b"event: token\nid: ");
    token.id.write(out);
    out.extend_from_slice(b"\ndata: {\"t\":");
    jcs::write_string(out, token.text);
    out.extend_from_slice(b",\"i\":");
    out.extend_from_slice(itoa::Buffer::new().format(token.i).as_bytes());
    if token.channel != 0 {
        out.extend_from_slice(b",\"c\":");
        out.extend_from_slice(itoa::Buffer::new().format(token.channel).as_bytes());
    }
    out.extend_from_slice(b"}\n\n");
}

/// Appends a `metrics` frame.
pub fn metrics(out: &mut Vec<u8>, data: &impl Serialize) {
    frame(out, "metrics", None, data);
}

/// Appends the `end` frame.
pub fn end(out: &mut Vec<u8>, data: &impl Serialize, id: EventId) {
    frame(out, "end", Some(id), data);
}

/// Appends the `error` frame. It has an id once the task has a transcript.
pub fn error(out: &mut Vec<u8>, error: &ErrorBody, id: Option<EventId>) {
    frame(out, "error", id, error);
}

fn frame(out: &mut Vec<u8>, name: &str, id: Option<EventId>, data: &impl Serialize) {
    let start = out.len();
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        id.write(out);
    }
    out.extend_from_slice(b"\ndata: ");
    if serde_json::to_writer(&mut *out, data).is_ok() {
        out.extend_from_slice(b"\n\n");
        return;
    }
    // Only a map with keys that are no strings gets here. The stream must still end with a whole frame.
    out.truncate(start);
    let fault = ErrorBody::new(
        Code::Internal,
        format!("the `{name}` event could not be written"),
    );
    frame(out, "error", id, &fault);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: EventId = EventId {
        k: 5,
        hex16: 0xab,
        end: false,
    };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn test_a_token_on_channel_0_leaves_the_channel_out() {
        let frame = written(|out| {
            token(
                out,
                &Token {
                    text: "a\n\"b",
                    i: 3,
                    channel: 0,
                    id: ID,
                },
            )
        });
        assert_eq!(
            frame,
            "event: token\nid: 5-00000000000000ab\ndata: {\"t\":\"a\\n\\\"b\",\"i\":3}\n\n"
        );
    }

    #[test]
    fn test_a_token_on_another_channel_names_it() {
        let frame = written(|out| {
            token(
                out,
                &Token {
                    text: "x",
                    i: 0,
                    channel: 2,
                    id: ID,
                },
            )
        });
        assert!(
            frame.ends_with("data: {\"t\":\"x\",\"i\":0,\"c\":2}\n\n"),
            "{frame}"
        );
    }

    #[test]
    fn test_started_and_metrics_carry_no_id() {
        let started_data = Started {
            task_id: "t".into(),
            queue_position: 0,
            predicted_start_ms: Some(12),
            determinism: Level::Strict,
            replica_set: None,
            resumed_from: Some(9),
        };
        assert_eq!(
            written(|out| started(out, &started_data)),
            "event: started\ndata: {\"task_id\":\"t\",\"queue_position\":0,\"predicted_start_ms\":12,\
             \"determinism\":\"strict\",\"resumed_from\":9}\n\n"
        );
        assert_eq!(
            written(|out| metrics(out, &json!({"queue_depth": 1}))),
            "event: metrics\ndata: {\"queue_depth\":1}\n\n"
        );
    }

    #[test]
    fn test_terminals_carry_their_id() {
        let id = EventId { end: true, ..ID };
        let data = End {
            tokens_out: 1,
            decode_ms: 2,
            finish_reason: FinishReason::Stop,
            usage: Usage {
                tokens_in: 3,
                tokens_out: 1,
                tokens_cached: None,
            },
            output: None,
            receipt: json!({}),
        };
        assert_eq!(
            written(|out| end(out, &data, id)),
            "event: end\nid: 5-00000000000000ab-end\ndata: {\"tokens_out\":1,\"decode_ms\":2,\"finish_reason\":\"stop\",\
             \"usage\":{\"tokens_in\":3,\"tokens_out\":1},\"receipt\":{}}\n\n"
        );
        let body = ErrorBody::new(Code::Canceled, "canceled");
        assert!(
            written(|out| error(out, &body, Some(id)))
                .starts_with("event: error\nid: 5-00000000000000ab-end\n")
        );
        assert!(written(|out| error(out, &body, None)).starts_with("event: error\ndata: {"));
    }

    #[test]
    fn test_data_that_is_no_json_becomes_a_whole_error_frame() {
        let no_json = BTreeMap::from([((1, 2), 3)]);
        let frame = written(|out| end(out, &no_json, ID));
        assert!(
            frame.starts_with("event: error\nid: ") && frame.ends_with("\n\n"),
            "{frame}"
        );
        assert!(frame.contains("INTERNAL"), "{frame}");
    }

    proptest! {
        #[test]
        fn test_a_token_frame_is_four_lines_and_gives_its_text_back(text in any::<String>(), i: u64, channel in 0u8..3) {
            let frame = written(|out| token(out, &Token { text: &text, i, channel, id: ID }));
            let lines: Vec<&str> = frame.split('\n').collect();
            prop_assert_eq!(lines.len(), 5);
            prop_assert!(!frame.contains('\r'));
            let data: Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
            prop_assert_eq!(data["t"].as_str(), Some(text.as_str()));
            prop_assert_eq!(data["i"].as_u64(), Some(i));
            prop_assert_eq!(data["c"].as_u64().unwrap_or(0), u64::from(channel));
        }
    }
}
