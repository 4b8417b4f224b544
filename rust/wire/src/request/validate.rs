//! From the fields of a body to a `TaskRequest`: every field's type, bounds and default, and how fields fit together.

use serde_json::{Map, Value};

use super::input::take_input;
use super::shapes::{is_logit_bias, is_response_format, is_stop, is_tool};
use super::{
    Fields, KvHint, Level, OnDisconnect, ParamError, ReceiptForm, Reuse, TaskRequest, kind,
};
use crate::profile;
use crate::vocabulary::Workload;

/// The largest `max_tokens`; what a model's context allows is for the daemon to say.
pub const MAX_TOKENS: u32 = i32::MAX as u32;
const DEFAULT_MAX_TOKENS: u32 = 256;
const MAX_SEED: u32 = i32::MAX as u32;
const MAX_DEADLINE_MS: u32 = 7 * 24 * 3600 * 1000;

/// Every field of the contract.
pub(super) const KNOWN: &[&str] = &[
    "task_id",
    "session_id",
    "workload",
    "model_ref",
    "engine",
    "ctx",
    "priority",
    "prompt",
    "messages",
    "inputs",
    "max_tokens",
    "expected_tokens",
    "deadline_ms",
    "on_disconnect",
    "kv_hint",
    "reuse",
    "receipt",
    "wait",
    "determinism",
    "seed",
    "sampler_profile_version",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "ignore_eos",
    "logit_bias",
    "tools",
    "response_format",
    "n",
];

/// Names from other APIs, and what to do instead.
const ALIASES: &[(&str, &str)] = &[
    ("model", "did you mean `model_ref`?"),
    ("max_completion_tokens", "did you mean `max_tokens`?"),
    ("max_new_tokens", "did you mean `max_tokens`?"),
    ("n_predict", "did you mean `max_tokens`?"),
    ("repetition_penalty", "did you mean `repeat_penalty`?"),
    ("input", "did you mean `prompt`?"),
    (
        "stream",
        "ask for the stream with the header `Accept: text/event-stream`",
    ),
];

impl TaskRequest {
    /// Takes every field of the contract and refuses the rest.
    pub(crate) fn from_fields(mut fields: Fields) -> Result<Self, ParamError> {
        let (workload, input) = take_input(&mut fields)?;
        one_output(&mut fields)?;
        profile_version(&mut fields)?;
        let request = Self {
            task_id: fields.uuid("task_id")?,
            session_id: fields.uuid("session_id")?,
            workload,
            input,
            model_ref: model_ref(&mut fields)?,
            engine: name(
                &mut fields,
                "engine",
                "the name of an engine, such as `llamacpp`",
            )?,
            ctx: fields.count("ctx", 1, u32::MAX)?,
            priority: name(
                &mut fields,
                "priority",
                "the name of a class, such as `interactive`",
            )?,
            determinism: fields.choice(
                "determinism",
                &[
                    ("strict", Level::Strict),
                    ("best_effort", Level::BestEffort),
                ],
            )?,
            seed: fields.count("seed", 0, MAX_SEED)?,
            max_tokens: fields
                .count("max_tokens", 1, MAX_TOKENS)?
                .unwrap_or(DEFAULT_MAX_TOKENS),
            expected_tokens: fields.count("expected_tokens", 1, MAX_TOKENS)?,
            deadline_ms: fields
                .count("deadline_ms", 1, MAX_DEADLINE_MS)?
                .map(u64::from),
            on_disconnect: fields.choice(
                "on_disconnect",
                &[
                    ("keep", OnDisconnect::Keep),
                    ("cancel", OnDisconnect::Cancel),
                ],
            )?,
            kv_hint: fields
                .choice(
                    "kv_hint",
                    &[("reuse", KvHint::Reuse), ("cold", KvHint::Cold)],
                )?
                .unwrap_or(KvHint::Reuse),
            reuse: fields
                .choice(
                    "reuse",
                    &[
                        ("none", Reuse::None),
                        ("coalesce", Reuse::Coalesce),
                        ("cache", Reuse::Cache),
                    ],
                )?
                .unwrap_or(Reuse::None),
            receipt: fields
                .choice(
                    "receipt",
                    &[
                        ("unsigned", ReceiptForm::Unsigned),
                        ("signed", ReceiptForm::Signed),
                    ],
                )?
                .unwrap_or(ReceiptForm::Unsigned),
            wait: fields.flag("wait")?.unwrap_or(false),
            sampling: sampling(&mut fields, workload)?,
        };
        fields.finish(KNOWN, ALIASES)?;
        if request.reuse != Reuse::None && request.seed.is_none() {
            return Err(ParamError::of("reuse", "`reuse` needs an explicit `seed`")
                .with_hint("send a `seed`"));
        }
        Ok(request)
    }
}

/// Everything that decides the output beside the input, the seed and `max_tokens`.
fn sampling(fields: &mut Fields, workload: Workload) -> Result<Map<String, Value>, ParamError> {
    let mut sampling = Map::new();
    for parameter in profile::V1 {
        let value = match fields.take(parameter.name) {
            None => parameter.default_value(),
            Some(value) => parameter
                .accept(&value)
                .ok_or_else(|| ParamError::wrong(parameter.name, &parameter.allowed(), &value))?,
        };
        sampling.insert(parameter.name.to_owned(), value);
    }
    sampling.insert(
        "ignore_eos".to_owned(),
        Value::from(fields.flag("ignore_eos")?.unwrap_or(false)),
    );
    let stop = checked(
        fields,
        "stop",
        is_stop,
        "up to 16 strings of 1 to 256 characters each",
    )?;
    sampling.insert(
        "stop".to_owned(),
        stop.unwrap_or_else(|| Value::Array(Vec::new())),
    );
    let optional = [
        (
            "logit_bias",
            checked(
                fields,
                "logit_bias",
                is_logit_bias,
                "an object of token ids with a number from -100 to 100 each",
            )?,
        ),
        ("tools", tools(fields, workload)?),
        (
            "response_format",
            checked(
                fields,
                "response_format",
                is_response_format,
                "an object with `type`: `text`, `json_object`, or `json_schema` with `json_schema`",
            )?,
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            sampling.insert(name.to_owned(), value);
        }
    }
    Ok(sampling)
}

fn tools(fields: &mut Fields, workload: Workload) -> Result<Option<Value>, ParamError> {
    let all_tools = |value: &Value| {
        value
            .as_array()
            .is_some_and(|tools| tools.iter().all(is_tool))
    };
    let tools = checked(
        fields,
        "tools",
        all_tools,
        "an array of `{type: function, function: {name, …}}`",
    )?;
    if tools.is_some() && workload != Workload::Chat {
        return Err(
            ParamError::of("tools", "`tools` needs `workload`: chat").with_hint("send `messages`")
        );
    }
    Ok(tools)
}

fn checked(
    fields: &mut Fields,
    name: &str,
    fits: impl Fn(&Value) -> bool,
    allowed: &str,
) -> Result<Option<Value>, ParamError> {
    match fields.take(name) {
        Some(value) if !fits(&value) => Err(ParamError::of(
            name,
            format!("`{name}` must be {allowed}, got: {}", unlike(&value)),
        )),
        other => Ok(other),
    }
}

/// What was got where only the inside of a value may be wrong.
fn unlike(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "another array",
        Value::Object(_) => "another object",
        other => kind(other),
    }
}

fn one_output(fields: &mut Fields) -> Result<(), ParamError> {
    match fields.take("n") {
        Some(n) if n.as_number().and_then(profile::whole) != Some(1) => {
            Err(ParamError::wrong("n", "the integer 1", &n)
                .with_hint("submit one task per output, each with its own `seed`"))
        }
        _ => Ok(()),
    }
}

fn profile_version(fields: &mut Fields) -> Result<(), ParamError> {
    fields
        .choice("sampler_profile_version", &[(profile::VERSION, ())])
        .map(|_| ())
}

fn model_ref(fields: &mut Fields) -> Result<Option<String>, ParamError> {
    let Some(text) = fields.text("model_ref")? else {
        return Ok(None);
    };
    if is_model_ref(&text) {
        return Ok(Some(text));
    }
    let message = "`model_ref` must be a catalog name, `sha256:` and 64 hex digits, or `repo:owner/name`, got: another string";
    Err(ParamError::of("model_ref", message)
        .with_hint("`GET /v1/models` lists the names that are served"))
}

fn is_model_ref(text: &str) -> bool {
    let word = |text: &str| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if let Some(digest) = text.strip_prefix("sha256:") {
        return digest.len() == 64
            && digest
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    }
    match text.strip_prefix("repo:") {
        Some(repo) => repo
            .split_once('/')
            .is_some_and(|(owner, name)| word(owner) && word(name)),
        None => word(text),
    }
}

/// A configured name: lower-case, starting with a letter.
fn name(fields: &mut Fields, field: &str, allowed: &str) -> Result<Option<String>, ParamError> {
    let Some(text) = fields.text(field)? else {
        return Ok(None);
    };
    let letters = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    if letters && text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(Some(text));
    }
    Err(ParamError::of(
        field,
        format!("`{field}` must be {allowed}, got: another string"),
    ))
}
