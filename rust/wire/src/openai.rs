//! The door for OpenAI clients: a pure view on tasks.
//!
//! Owns the translation of `/v1/chat/completions` and `/v1/completions` bodies into a `TaskRequest`; `chunks` owns the
//! way back. What cannot change the output is ignored, what could and is not supported is refused, what is unknown is
//! refused with a suggestion. `null` means absent, as OpenAI's clients mean it.

mod chunks;
mod tool_calls;

use serde_json::{Map, Value};

pub use chunks::{Answer, ChunkWriter, DONE, error_body, error_chunk};

use crate::errors::reason;
use crate::profile;
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

/// `owner/name`, as engines behind this API name their models, is a repository.
fn model_ref(model: &str) -> String {
    let repository = model.split_once('/').is_some() && !model.contains(':');
    if repository {
        format!("repo:{model}")
    } else {
        model.to_owned()
    }
}

fn input(
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

fn refuse_unsupported_values(given: &mut Fields) -> Result<(), ParamError> {
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
fn limits(given: &mut Fields, fields: &mut Map<String, Value>) -> Result<(), ParamError> {
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
fn tools(
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

/// The task id that a client's completion id names, if it names one.
pub fn task_of(completion_id: &str) -> Option<[u8; 16]> {
    completion_id
        .strip_prefix("chatcmpl-")
        .or_else(|| completion_id.strip_prefix("cmpl-"))
        .and_then(parse_uuid)
}

#[cfg(test)]
mod tests;
