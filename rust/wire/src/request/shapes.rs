//! The shapes of a task's structured fields: messages, tool calls, tools, response formats, stop strings, biases.

use serde_json::Value;

use super::{ParamError, did_you_mean};
use crate::errors::reason;

const MAX_STOPS: usize = 16;
const MAX_STOP_CHARS: usize = 256;
const MAX_BIASES: usize = 4096;
const MESSAGE_FIELDS: [&str; 5] = ["role", "content", "name", "tool_call_id", "tool_calls"];

pub(super) fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

/// Refuses a message that is not of the contract's shape, and says which member is at fault.
pub(super) fn check_message(index: usize, message: &Value) -> Result<(), ParamError> {
    let at = format!("messages[{index}]");
    let Value::Object(members) = message else {
        return Err(ParamError::wrong(&at, "an object", message));
    };
    let missing = |member: &str| {
        let at = format!("{at}.{member}");
        ParamError::of(&at, format!("`{at}` is missing"))
    };
    let role = members.get("role").ok_or_else(|| missing("role"))?;
    let calls = role == "assistant" && members.contains_key("tool_calls");
    if !calls && !members.contains_key("content") {
        return Err(
            missing("content").with_hint("only an assistant that calls tools may say nothing")
        );
    }
    for (key, value) in members {
        let Some((fits, allowed)) = message_member(key, value) else {
            let mut error = ParamError::of(&at, format!("unknown field in `{at}`"));
            error.reason = Some(reason::UNKNOWN_FIELD);
            error.hint = did_you_mean(key, MESSAGE_FIELDS.into_iter())
                .or_else(|| Some(format!("known fields: `{}`", MESSAGE_FIELDS.join("`, `"))));
            return Err(error);
        };
        if !fits {
            return Err(ParamError::wrong(&format!("{at}.{key}"), allowed, value));
        }
    }
    // Only the assistant may say nothing, where it calls tools; engines refuse anything else, but late.
    let calls = members["role"] == "assistant" && members.contains_key("tool_calls");
    if !members.contains_key("content") && !calls {
        let at = format!("{at}.content");
        return Err(ParamError::of(&at, format!("`{at}` is missing")));
    }
    Ok(())
}

/// Whether a known member of a message has a value that it takes, and which those are.
fn message_member(key: &str, value: &Value) -> Option<(bool, &'static str)> {
    let text = value.as_str();
    Some(match key {
        "role" => (
            matches!(text, Some("system" | "user" | "assistant" | "tool")),
            "one of `system`, `user`, `assistant`, `tool`",
        ),
        "content" => (text.is_some(), "a string"),
        "name" => (is_name(value), "1 to 64 characters"),
        "tool_call_id" => (is_text(value), "a non-empty string"),
        "tool_calls" => (
            value
                .as_array()
                .is_some_and(|calls| calls.iter().all(is_tool_call)),
            "an array of `{id, type: function, function: {name, arguments}}`",
        ),
        _ => return None,
    })
}

fn is_name(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|name| (1..=64).contains(&name.chars().count()))
}

/// Whether an object has exactly members that `fits` takes, and all of `required`.
fn is_object_of(value: &Value, required: &[&str], fits: impl Fn(&str, &Value) -> bool) -> bool {
    value.as_object().is_some_and(|members| {
        required.iter().all(|name| members.contains_key(*name))
            && members.iter().all(|(key, value)| fits(key, value))
    })
}

fn is_tool_call(value: &Value) -> bool {
    is_object_of(value, &["id", "type", "function"], |key, value| match key {
        "id" => value.is_string(),
        "type" => value == "function",
        "function" => is_object_of(value, &["name", "arguments"], |key, value| {
            matches!(key, "name" | "arguments") && value.is_string()
        }),
        _ => false,
    })
}

pub(super) fn is_tool(value: &Value) -> bool {
    is_object_of(value, &["type", "function"], |key, value| match key {
        "type" => value == "function",
        "function" => is_object_of(value, &["name"], |key, value| match key {
            "name" => is_name(value),
            "description" => value.is_string(),
            "parameters" => value.is_object(),
            "strict" => value.is_boolean(),
            _ => false,
        }),
        _ => false,
    })
}

pub(super) fn is_response_format(value: &Value) -> bool {
    let schema = value.get("type").is_some_and(|kind| kind == "json_schema");
    schema == value.get("json_schema").is_some()
        && is_object_of(value, &["type"], |key, value| match key {
            "type" => matches!(value.as_str(), Some("text" | "json_object" | "json_schema")),
            "json_schema" => value.is_object(),
            _ => false,
        })
}

pub(super) fn is_logit_bias(value: &Value) -> bool {
    let token_id = |key: &str| key.parse::<u32>().is_ok_and(|id| id.to_string() == key);
    value.as_object().is_some_and(|biases| {
        biases.len() <= MAX_BIASES
            && biases.iter().all(|(key, bias)| {
                token_id(key)
                    && bias
                        .as_f64()
                        .is_some_and(|bias| (-100.0..=100.0).contains(&bias))
            })
    })
}

pub(super) fn is_stop(value: &Value) -> bool {
    value.as_array().is_some_and(|stops| {
        stops.len() <= MAX_STOPS
            && stops.iter().all(|stop| {
                stop.as_str()
                    .is_some_and(|text| (1..=MAX_STOP_CHARS).contains(&text.chars().count()))
            })
    })
}
