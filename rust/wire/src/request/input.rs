//! What the model is given: exactly one of `prompt`, `messages`, `inputs`, and the workload that it fits.

use serde_json::Value;

use super::shapes::{check_message, is_text};
use super::{Fields, Input, ParamError};
use crate::vocabulary::Workload;

const INPUTS: [&str; 3] = ["prompt", "messages", "inputs"];

const WORKLOADS: &[(&str, Workload)] = &[
    ("completion", Workload::Completion),
    ("chat", Workload::Chat),
    ("embedding", Workload::Embedding),
    ("rerank", Workload::Rerank),
];

/// Takes the workload and its input; refuses an input of another workload.
pub(super) fn take_input(fields: &mut Fields) -> Result<(Workload, Input), ParamError> {
    let given: Vec<&str> = INPUTS.into_iter().filter(|name| fields.has(name)).collect();
    let workload = match fields.choice("workload", WORKLOADS)? {
        Some(workload) => workload,
        None if given == ["messages"] => Workload::Chat,
        None => Workload::Completion,
    };
    let wanted = match workload {
        Workload::Completion => "prompt",
        Workload::Chat => "messages",
        Workload::Embedding | Workload::Rerank => "inputs",
    };
    if let Some(other) = given.iter().find(|name| **name != wanted) {
        let message = format!(
            "`{other}` does not go with `workload`: {}",
            workload.as_str()
        );
        let hint = format!(
            "send `{wanted}` and leave `{other}` out, or name the workload that takes `{other}`"
        );
        return Err(ParamError::of(other, message).with_hint(hint));
    }
    let Some(value) = fields.take(wanted) else {
        let message = format!(
            "`{wanted}` is missing, needed by `workload`: {}",
            workload.as_str()
        );
        return Err(
            ParamError::of(wanted, message).with_hint("send one of `prompt`, `messages`, `inputs`")
        );
    };
    let input = match workload {
        Workload::Completion => prompt(value),
        Workload::Chat => messages(value),
        Workload::Embedding | Workload::Rerank => texts(value),
    };
    input.map(|input| (workload, input))
}

fn prompt(value: Value) -> Result<Input, ParamError> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(Input::Prompt(text)),
        other => Err(ParamError::wrong("prompt", "a non-empty string", &other)),
    }
}

fn messages(value: Value) -> Result<Input, ParamError> {
    match value {
        Value::Array(messages) if !messages.is_empty() => {
            for (index, message) in messages.iter().enumerate() {
                check_message(index, message)?;
            }
            Ok(Input::Messages(messages))
        }
        other => Err(ParamError::wrong(
            "messages",
            "a non-empty array of messages",
            &other,
        )),
    }
}

fn texts(value: Value) -> Result<Input, ParamError> {
    match value {
        Value::Array(texts) if !texts.is_empty() && texts.iter().all(is_text) => {
            Ok(Input::Inputs(texts))
        }
        other => Err(ParamError::wrong(
            "inputs",
            "a non-empty array of non-empty strings",
            &other,
        )),
    }
}
