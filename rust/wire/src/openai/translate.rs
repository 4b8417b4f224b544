//! OpenAI's fields as a task's fields, one group at a time.

use serde_json::{Map, Value};

use super::Door;
use crate::profile;
use crate::request::{Fields, ParamError};

/// `owner/name`, as engines behind this API name their models, is a repository.
pub(super) fn model_ref(model: &str) -> String {
    let repository = model.split_once('/').is_some() && !model.contains(':');
    if repository {
        format!("repo:{model}")
    } else {
        model.to_owned()
    }
}

pub(super) fn input(
    given: &mut Fields,
    door: Door,
    fields: &mut Map<String, Value>,
) -> Result<(), ParamError> {
    match door {
        Door::Chat => {
            let messages = match given.take("messages") {
                Some(Value::Array(messages)) => messages.into_iter().map(message).collect(),
                Some(other) => other,
                None => return Err(ParamError::of("messages", "`messages` is missing")),
            };
            fields.insert("workload".to_owned(), Value::from("chat"));
            fields.insert("messages".to_owned(), messages);
        }
        Door::Completion => {
            let prompt = match given.take("prompt") {
                Some(Value::Array(mut prompts)) if prompts.len() == 1 && prompts[0].is_string() => {
                    prompts.remove(0)
                }
                Some(prompt @ Value::String(_)) => prompt,
                Some(other) => {
                    let error = ParamError::wrong("prompt", "a string", &other);
                    return Err(
                        error.with_hint("send one text per request; token ids are not supported")
                    );
                }
                None => return Err(ParamError::of("prompt", "`prompt` is missing")),
            };
            fields.insert("prompt".to_owned(), prompt);
        }
    }
    match (door, given.take("messages"), given.take("prompt")) {
        (_, None, None) => Ok(()),
        (Door::Chat, ..) => Err(ParamError::of(
            "prompt",
            "`prompt` belongs to `/v1/completions`",
        )),
        (Door::Completion, ..) => Err(ParamError::of(
            "messages",
            "`messages` belongs to `/v1/chat/completions`",
        )),
    }
}

/// A message in the task's form. What does not fit is left as it is, for the task's own check to name.
fn message(message: Value) -> Value {
    let Value::Object(mut members) = message else {
        return message;
    };
    members.retain(|key, value| {
        !value.is_null() && !matches!(key.as_str(), "refusal" | "annotations")
    });
    if members.get("role").is_some_and(|role| role == "developer") {
        members.insert("role".to_owned(), Value::from("system"));
    }
    let joined = members
        .get("content")
        .and_then(Value::as_array)
        .and_then(|parts| joined_text(parts));
    if let Some(text) = joined {
        members.insert("content".to_owned(), Value::from(text));
    }
    if let Some(Value::Array(calls)) = members.get_mut("tool_calls") {
        for call in calls.iter_mut().filter_map(Value::as_object_mut) {
            // A client that sends a streamed call back often leaves its index in.
            call.remove("index");
        }
    }
    Value::Object(members)
}

fn joined_text(parts: &[Value]) -> Option<String> {
    let text = |part: &Value| {
        let text = part.get("text")?.as_str()?;
        (part.get("type")? == "text").then(|| text.to_owned())
    };
    parts.iter().map(text).collect()
}

pub(super) fn refuse_unsupported_values(given: &mut Fields) -> Result<(), ParamError> {
    let refuse = |name: &str, hint: &str| {
        Err(ParamError::of(name, format!("`{name}` is not supported")).with_hint(hint))
    };
    match given.take("logprobs") {
        None | Some(Value::Bool(false)) => {}
        Some(_) => return refuse("logprobs", "leave it out"),
    }
    match given.take("echo") {
        None | Some(Value::Bool(false)) => {}
        Some(_) => return refuse("echo", "leave it out; the client has the prompt"),
    }
    match given.take("best_of") {
        Some(value) if value.as_number().and_then(profile::whole) != Some(1) => {
            return refuse("best_of", "submit one request per output");
        }
        _ => {}
    }
    match given.take("modalities") {
        Some(value) if value != Value::from(vec!["text"]) => {
            refuse("modalities", "leave it out: text is what there is")
        }
        _ => Ok(()),
    }
}

/// `max_tokens` under its two names, and `stop` as a list.
pub(super) fn limits(
    given: &mut Fields,
    fields: &mut Map<String, Value>,
) -> Result<(), ParamError> {
    if let Some(limit) = given.take("max_completion_tokens") {
        if given.take("max_tokens").is_some_and(|other| other != limit) {
            let message = "`max_tokens` and `max_completion_tokens` are the same limit and differ";
            return Err(
                ParamError::of("max_completion_tokens", message).with_hint("send one of them")
            );
        }
        fields.insert("max_tokens".to_owned(), limit);
    }
    match given.take("stop") {
        Some(Value::String(stop)) => fields.insert("stop".to_owned(), Value::from(vec![stop])),
        Some(other) => fields.insert("stop".to_owned(), other),
        None => None,
    };
    Ok(())
}

/// `tool_choice` decides with no field of its own in a task: only "as the model likes" and "no tools" can be kept.
pub(super) fn tools(
    given: &mut Fields,
    door: Door,
    fields: &mut Map<String, Value>,
) -> Result<(), ParamError> {
    let tools = given
        .take("tools")
        .filter(|tools| tools.as_array().is_none_or(|list| !list.is_empty()));
    let choice = given.take("tool_choice");
    match (choice.as_ref().and_then(Value::as_str), choice.is_some()) {
        (Some("none"), _) => return Ok(()),
        (Some("auto"), _) | (None, false) => {}
        _ => {
            return Err(ParamError::of(
                "tool_choice",
                "`tool_choice` must be one of `auto`, `none`",
            ));
        }
    }
    match (door, tools) {
        (_, None) => {}
        (Door::Completion, Some(_)) => {
            return Err(ParamError::of(
                "tools",
                "`tools` belongs to `/v1/chat/completions`",
            ));
        }
        (Door::Chat, Some(tools)) => {
            fields.insert("tools".to_owned(), tools);
        }
    }
    Ok(())
}
