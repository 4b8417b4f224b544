//! The door for OpenAI clients: a pure view on tasks.
//!
//! Owns the translation of `/v1/chat/completions` and `/v1/completions` bodies into a `TaskRequest`; `chunks` owns the
//! way back. What cannot change the output is ignored, what could and is not supported is refused, what is unknown is
//! refused with a suggestion. `null` means absent, as OpenAI's clients mean it.

mod chunks;
mod tool_calls;
mod translate;

use serde_json::{Map, Value};

pub use chunks::{Answer, ChunkWriter, DONE, error_body, error_chunk};

use crate::errors::reason;
use translate::{input, limits, model_ref, refuse_unsupported_values, tools};

use crate::request::{
    Fields, Level, OnDisconnect, ParamError, TaskRequest, did_you_mean, parse_uuid,
};

/// Which route a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// How the client wants to see its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatView {
    /// Which route it came by.
    pub door: Door,
    /// Chunks as they come, or one body at the end.
    pub stream: bool,
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// The model's name as the client wrote it; answers repeat it.
    pub model: String,
}

/// Fields that are passed on under the same name.
const SAME: &[&str] = &[
    "max_tokens",
    "seed",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "n",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "ignore_eos",
];

/// Fields that are passed on in another shape.
const TRANSLATED: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "stop",
    "tools",
    "tool_choice",
    "max_completion_tokens",
    "best_of",
    "echo",
    "logprobs",
    "modalities",
];

/// Fields that cannot change the output.
const IGNORED: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
];

/// Fields that would change the answer and are not supported.
const UNSUPPORTED: &[&str] = &[
    "audio",
    "top_logprobs",
    "functions",
    "function_call",
    "prediction",
    "web_search_options",
    "reasoning_effort",
    "verbosity",
    "suffix",
];

/// OrchQueue's own fields: this door takes them as headers.
const HEADERS: &[(&str, &str)] = &[
    ("priority", "X-Orchqueue-Priority"),
    ("deadline_ms", "X-Orchqueue-Deadline-Ms"),
    ("determinism", "X-Orchqueue-Determinism"),
    ("task_id", "X-Orchqueue-Task-Id"),
];

/// Reads the body of `/v1/chat/completions`.
pub fn parse_chat(body: &[u8]) -> Result<(TaskRequest, ChatView), ParamError> {
    parse(body, Door::Chat)
}

/// Reads the body of `/v1/completions`.
pub fn parse_completion(body: &[u8]) -> Result<(TaskRequest, ChatView), ParamError> {
    parse(body, Door::Completion)
}

/// Applies one `X-Orchqueue-*` header. `name` is lower-case; other headers are left alone.
pub fn apply_header(task: &mut TaskRequest, name: &str, value: &str) -> Result<(), ParamError> {
    let text = || Value::from(value);
    let field = match name {
        "x-orchqueue-priority" => ("priority", text()),
        "x-orchqueue-determinism" => ("determinism", text()),
        "x-orchqueue-task-id" => ("task_id", text()),
        "x-orchqueue-deadline-ms" => (
            "deadline_ms",
            value.parse::<u32>().map_or_else(|_| text(), Value::from),
        ),
        _ => return Ok(()),
    };
    // The header is checked as the field of `POST /v1/tasks` that it stands for.
    let carrier = Map::from_iter([
        ("prompt".to_owned(), Value::from("x")),
        (field.0.to_owned(), field.1),
    ]);
    let checked = TaskRequest::from_fields(Fields::of(carrier)).map_err(|mut error| {
        error.message = error
            .message
            .replace(&format!("`{}`", field.0), &format!("`{name}`"));
        error
    })?;
    match field.0 {
        "priority" => task.priority = checked.priority,
        "determinism" => task.determinism = checked.determinism,
        "task_id" => task.task_id = checked.task_id,
        _ => task.deadline_ms = checked.deadline_ms,
    }
    Ok(())
}

fn parse(body: &[u8], door: Door) -> Result<(TaskRequest, ChatView), ParamError> {
    let mut given = Fields::read(body)?.into_left();
    given.retain(|_, value| !value.is_null());
    refuse_unknown(&given)?;
    let mut given = Fields::of(given);
    let model = given
        .text("model")?
        .filter(|model| !model.is_empty())
        .ok_or_else(|| {
            ParamError::of("model", "`model` is missing")
                .with_hint("`GET /v1/models` lists the names")
        })?;
    let view = view(&mut given, door, model)?;
    let mut fields = Map::new();
    input(&mut given, door, &mut fields)?;
    fields.insert("model_ref".to_owned(), Value::from(model_ref(&view.model)));
    refuse_unsupported_values(&mut given)?;
    limits(&mut given, &mut fields)?;
    tools(&mut given, door, &mut fields)?;
    for name in SAME {
        if let Some(value) = given.take(name) {
            fields.insert((*name).to_owned(), value);
        }
    }
    let mut task = TaskRequest::from_fields(Fields::of(fields)).map_err(as_openai_names_it)?;
    task.on_disconnect = Some(OnDisconnect::Cancel);
    task.determinism = Some(Level::BestEffort);
    Ok((task, view))
}

fn as_openai_names_it(mut error: ParamError) -> ParamError {
    if error.field.as_deref() == Some("model_ref") {
        error.field = Some("model".to_owned());
        error.message = error.message.replace("`model_ref`", "`model`");
    }
    error
}

fn refuse_unknown(given: &Map<String, Value>) -> Result<(), ParamError> {
    for name in given.keys().map(String::as_str) {
        if UNSUPPORTED.contains(&name) {
            return Err(ParamError::of(name, format!("`{name}` is not supported"))
                .with_hint("leave it out"));
        }
        if [SAME, TRANSLATED, IGNORED]
            .iter()
            .any(|list| list.contains(&name))
        {
            continue;
        }
        let mut error = ParamError::of(
            name,
            format!(
                "unknown field `{}`",
                name.chars().take(64).collect::<String>()
            ),
        );
        error.reason = Some(reason::UNKNOWN_FIELD);
        error.hint = match HEADERS.iter().find(|(field, _)| *field == name) {
            Some((_, header)) => Some(format!(
                "send it as the header `{header}`, or use `POST /v1/tasks`"
            )),
            None => did_you_mean(name, SAME.iter().chain(TRANSLATED).copied()),
        };
        return Err(error);
    }
    Ok(())
}

fn view(given: &mut Fields, door: Door, model: String) -> Result<ChatView, ParamError> {
    let stream = given.flag("stream")?.unwrap_or(false);
    let include_usage = match given.take("stream_options") {
        None => false,
        Some(Value::Object(mut options)) => match options.remove("include_usage") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(include)) => include,
            Some(other) => {
                return Err(ParamError::wrong(
                    "stream_options.include_usage",
                    "`true` or `false`",
                    &other,
                ));
            }
        },
        Some(other) => return Err(ParamError::wrong("stream_options", "an object", &other)),
    };
    Ok(ChatView {
        door,
        stream,
        include_usage,
        model,
    })
}

/// The task id that a client's completion id names, if it names one.
pub fn task_of(completion_id: &str) -> Option<[u8; 16]> {
    completion_id
        .strip_prefix("chatcmpl-")
        .or_else(|| completion_id.strip_prefix("cmpl-"))
        .and_then(parse_uuid)
}

#[cfg(test)]
mod tests;
