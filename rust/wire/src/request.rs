//! The body of `POST /v1/tasks`, parsed into a type that cannot be wrong.
//!
//! Owns what a client may ask for, its defaults and its bounds, and what of it the request digest covers. Does not know
//! what is configured: whether a class, a model or an engine exists is the daemon's to say.

mod fields;
mod ids;
mod input;
mod json;
mod shapes;
mod validate;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub(crate) use fields::{Fields, did_you_mean, kind};
pub use ids::{default_seed, format_uuid, parse_uuid};
pub use json::MAX_DEPTH;
pub use validate::MAX_TOKENS;

use crate::errors::{Code, ErrorBody};
use crate::vocabulary::Workload;
use crate::{jcs, profile};

/// Why a request is refused, before anything is queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParamError {
    /// The field at fault, where it is one.
    pub field: Option<String>,
    /// The field, what was got and what is allowed; never the content.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The reason of the envelope, where a client may act on it.
    pub reason: Option<&'static str>,
}

impl ParamError {
    /// A fault of the body as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            field: None,
            message: message.into(),
            hint: None,
            reason: None,
        }
    }

    /// A fault of one field.
    pub fn of(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(message)
        }
    }

    /// A field whose value is not what is allowed.
    pub fn wrong(field: &str, allowed: &str, got: &Value) -> Self {
        let names = |words: &[&str]| words.iter().any(|word| allowed.contains(word));
        // A number is no secret and the quickest way to see the mistake; text is never repeated.
        let number = got.to_string();
        let got = match got {
            Value::Number(_) if names(&["number", "integer"]) => number.as_str(),
            Value::String(_) if names(&["one of", "uuid", "characters", "string"]) => {
                "another string"
            }
            other => kind(other),
        };
        Self::of(field, format!("`{field}` must be {allowed}, got: {got}"))
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ParamError> for ErrorBody {
    fn from(error: ParamError) -> Self {
        let mut body = ErrorBody::new(Code::InvalidParams, error.message);
        body.hint = error.hint;
        body.reason = error.reason.map(Into::into);
        body.param = error.field;
        body
    }
}

/// What is promised about the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The same request yields the same bytes within a replica set.
    Strict,
    /// The seed is sent, nothing is promised.
    BestEffort,
}

impl Level {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Strict => "strict",
            Level::BestEffort => "best_effort",
        }
    }

    /// The level with that name.
    pub fn from_name(name: &str) -> Option<Level> {
        [Level::Strict, Level::BestEffort]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// What happens to the task when its client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It goes on.
    Keep,
    /// It is canceled once nobody has listened for the grace time.
    Cancel,
}

/// Whether the session's warm cache is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvHint {
    /// A replica with a warm cache is preferred.
    Reuse,
    /// Any replica will do.
    Cold,
}

/// Whether another task's decode may answer this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Never.
    None,
    /// One in flight may.
    Coalesce,
    /// A stored one may, too.
    Cache,
}

/// How the receipt in `end` comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptForm {
    /// Without a signature; `GET /v1/tasks/{id}/receipt` signs it.
    Unsigned,
    /// Signed.
    Signed,
}

/// What the model is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Text to complete.
    Prompt(String),
    /// A conversation to answer.
    Messages(Vec<Value>),
    /// Texts to embed or to rank.
    Inputs(Vec<Value>),
}

/// A task that was asked for. Every field is inside its bounds and every default is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRequest {
    /// The client's own id; the server makes one otherwise.
    pub task_id: Option<[u8; 16]>,
    /// The session that the task is a turn of.
    pub session_id: Option<[u8; 16]>,
    /// What kind of work it is; it fits `input`.
    pub workload: Workload,
    /// What the model is given.
    pub input: Input,
    /// `sha256:<64 hex>`, `repo:owner/name` or a catalog name.
    pub model_ref: Option<String>,
    /// Only this engine.
    pub engine: Option<String>,
    /// The context that the client counts on.
    pub ctx: Option<u32>,
    /// The name of a class; the daemon knows which exist.
    pub priority: Option<String>,
    /// The level asked for; where silent the pool decides.
    pub determinism: Option<Level>,
    /// Below 2^31; where silent it follows from the task id.
    pub seed: Option<u32>,
    /// The most tokens to decode.
    pub max_tokens: u32,
    /// The client's own estimate; used for forecasts only and may exceed `max_tokens`.
    pub expected_tokens: Option<u32>,
    /// Milliseconds after receipt.
    pub deadline_ms: Option<u64>,
    /// Where silent the way of submission decides.
    pub on_disconnect: Option<OnDisconnect>,
    /// Whether a warm cache is wanted.
    pub kv_hint: KvHint,
    /// Whether another decode may answer; needs a seed.
    pub reuse: Reuse,
    /// How the receipt in `end` comes.
    pub receipt: ReceiptForm,
    /// Whether the answer waits for the end.
    pub wait: bool,
    /// Everything else that the digest covers: the whole sampler profile after defaults, `stop`, `ignore_eos`, and
    /// `tools`, `response_format`, `logit_bias` where given.
    pub sampling: Map<String, Value>,
}

/// Reads the body of `POST /v1/tasks`.
pub fn parse_task(body: &[u8]) -> Result<TaskRequest, ParamError> {
    TaskRequest::from_fields(Fields::read(body)?)
}

impl TaskRequest {
    /// Exactly what the request digest covers, and what an adapter's template reads.
    pub fn effective(&self, seed: u32) -> Map<String, Value> {
        let mut effective = self.covered();
        effective.insert("seed".to_owned(), Value::from(seed));
        effective
    }

    /// What makes two bodies with one task id the same: all but the id, `wait` and the receipt's form.
    pub fn body_digest(&self) -> [u8; 32] {
        let mut body = self.covered();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        put("seed", self.seed.map(Value::from));
        put(
            "session_id",
            self.session_id.map(|id| Value::from(format_uuid(&id))),
        );
        put("model_ref", self.model_ref.clone().map(Value::from));
        put("engine", self.engine.clone().map(Value::from));
        put("ctx", self.ctx.map(Value::from));
        put("priority", self.priority.clone().map(Value::from));
        put(
            "determinism",
            self.determinism.map(|level| Value::from(level.as_str())),
        );
        put("expected_tokens", self.expected_tokens.map(Value::from));
        put("deadline_ms", self.deadline_ms.map(Value::from));
        put(
            "on_disconnect",
            self.on_disconnect
                .map(|choice| Value::from(choice == OnDisconnect::Keep)),
        );
        put("kv_hint", Some(Value::from(self.kv_hint == KvHint::Reuse)));
        put("reuse", Some(Value::from(self.reuse as u8)));
        Sha256::digest(jcs::map_to_vec(&body)).into()
    }

    /// The length of what the model is given, in bytes: what a token estimate starts from.
    pub fn input_bytes(&self) -> usize {
        match &self.input {
            Input::Prompt(prompt) => prompt.len(),
            Input::Inputs(texts) => texts.iter().filter_map(Value::as_str).map(str::len).sum(),
            Input::Messages(messages) => messages
                .iter()
                .filter_map(|message| message.get("content")?.as_str())
                .map(str::len)
                .sum(),
        }
    }

    /// What the digest covers, but for the seed.
    fn covered(&self) -> Map<String, Value> {
        let mut covered = self.sampling.clone();
        let (name, input) = match &self.input {
            Input::Prompt(prompt) => ("prompt", Value::from(prompt.as_str())),
            Input::Messages(messages) => ("messages", Value::from(messages.as_slice())),
            Input::Inputs(inputs) => ("inputs", Value::from(inputs.as_slice())),
        };
        covered.insert(name.to_owned(), input);
        covered.insert("workload".to_owned(), Value::from(self.workload.as_str()));
        covered.insert("max_tokens".to_owned(), Value::from(self.max_tokens));
        covered.insert(
            "sampler_profile_version".to_owned(),
            Value::from(profile::VERSION),
        );
        covered
    }
}

#[cfg(test)]
mod tests;
