//! Tool calls from the text of the tool-call channel.
//!
//! Engines stream a call as OpenAI deltas: JSON lists of `{index, id?, type?, function: {name?, arguments?}}`, each event
//! one list, so the channel's text is lists one after the other. Text of another shape is passed on as the arguments of
//! one call: nothing that a model said is lost.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One event's text as the deltas of a chunk.
pub(super) fn deltas(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(calls)) if calls.iter().all(Value::is_object) => Value::Array(calls),
        Ok(call @ Value::Object(_)) => json!([call]),
        _ => json!([{"index": 0, "function": {"arguments": text}}]),
    }
}

/// The whole channel's text as finished calls.
pub(super) fn finished(text: &str) -> Vec<Value> {
    let read: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect();
    let mut calls: BTreeMap<u64, Call> = BTreeMap::new();
    for value in read.unwrap_or_else(|_| vec![Value::from(text)]) {
        let pieces = match value {
            Value::Array(pieces) => pieces,
            other => vec![other],
        };
        for (position, piece) in pieces.into_iter().enumerate() {
            let index = piece
                .get("index")
                .and_then(Value::as_u64)
                .unwrap_or(position as u64);
            calls.entry(index).or_default().add(&piece, text);
        }
    }
    calls
        .into_iter()
        .map(|(index, call)| call.into_value(index))
        .collect()
}

#[derive(Default)]
struct Call {
    id: Option<String>,
    name: String,
    arguments: String,
}

impl Call {
    fn add(&mut self, piece: &Value, whole: &str) {
        let Some(piece) = piece.as_object() else {
            whole.clone_into(&mut self.arguments);
            return;
        };
        if let Some(id) = piece
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
        {
            self.id = Some(id.to_owned());
        }
        let empty = Map::new();
        let function = piece
            .get("function")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        self.name.push_str(
            function
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        match function.get("arguments") {
            Some(Value::String(part)) => self.arguments.push_str(part),
            Some(Value::Null) | None => {}
            Some(whole) => self.arguments.push_str(&whole.to_string()),
        }
    }

    fn into_value(self, index: u64) -> Value {
        let id = self.id.unwrap_or_else(|| format!("call_{index}"));
        json!({"id": id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_deltas_in_pieces_become_whole_calls() {
        let text = concat!(
            r#"[{"index":0,"id":"a","type":"function","function":{"name":"sum","arguments":""}}]"#,
            r#"[{"index":0,"function":{"arguments":"{\"x\""}}]"#,
            r#"[{"index":0,"function":{"arguments":":1}"}},{"index":1,"id":"b","function":{"name":"f","arguments":"{}"}}]"#,
        );
        assert_eq!(
            Value::from(finished(text)),
            json!([
                {"id": "a", "type": "function", "function": {"name": "sum", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ])
        );
    }

    #[test]
    fn test_arguments_as_an_object_become_text() {
        let calls = finished(r#"{"function":{"name":"f","arguments":{"x":1}}}"#);
        assert_eq!(calls[0]["function"]["arguments"], "{\"x\":1}");
        assert_eq!(calls[0]["id"], "call_0");
    }

    #[test]
    fn test_text_that_is_no_call_is_kept_as_arguments() {
        for text in ["{\"na", "[1]", "7"] {
            assert_eq!(finished(text)[0]["function"]["arguments"], text);
        }
        assert_eq!(
            deltas("{\"na"),
            json!([{"index": 0, "function": {"arguments": "{\"na"}}])
        );
        assert_eq!(deltas(r#"[{"index":1}]"#), json!([{"index": 1}]));
        assert!(finished("").is_empty());
    }
}
