//! The error codes that a client can see, and the envelope that carries one.
//!
//! The registry of `contracts/errors.yaml` as an enum; a contract test holds the two, the HTTP table, the OpenAPI enum
//! and the Python exceptions equal. HTTP status numbers stand here and nowhere else in this crate.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// One error code of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The queue of the class is full and its policy turns the task away.
    AdmissionReject,
    /// The queue was full and an older task gave way.
    QueueFullDropLru,
    /// Something about the request itself is wrong; sending it again cannot help.
    InvalidParams,
    /// The pool is draining or failed.
    PoolUnready,
    /// No replica can serve the task.
    PoolUnavailable,
    /// Every attempt that the task was allowed has failed.
    ReplicaExhausted,
    /// An attempt ran past one of its timeouts.
    DecodeTimeout,
    /// The replica died or broke its stream.
    WorkerReset,
    /// The daemon is at fault.
    Internal,
    /// The task cannot be done by its deadline.
    DeadlineUnmet,
    /// The model is no longer served.
    ModelDeprecated,
    /// An artifact's digest or signature does not hold.
    UntrustedArtifact,
    /// The tenant's quota is used up.
    QuotaExceeded,
    /// No key, or one that is not known.
    Unauthenticated,
    /// The key's role does not allow this.
    Forbidden,
    /// There is nothing under that name.
    NotFound,
    /// The id is taken by another body, or the state does not allow this.
    Conflict,
    /// The task was canceled.
    Canceled,
    /// Two decodes of the same request differ.
    DeterminismDiverged,
}

impl Code {
    /// Every code, in the order of the registry.
    pub const ALL: &[Code] = &[
        Code::AdmissionReject,
        Code::QueueFullDropLru,
        Code::InvalidParams,
        Code::PoolUnready,
        Code::PoolUnavailable,
        Code::ReplicaExhausted,
        Code::DecodeTimeout,
        Code::WorkerReset,
        Code::Internal,
        Code::DeadlineUnmet,
        Code::ModelDeprecated,
        Code::UntrustedArtifact,
        Code::QuotaExceeded,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::NotFound,
        Code::Conflict,
        Code::Canceled,
        Code::DeterminismDiverged,
    ];

    /// The row of the table: name, HTTP status, whether sending the same request again may help.
    const fn row(self) -> (&'static str, u16, bool) {
        match self {
            Code::AdmissionReject => ("ADMISSION_REJECT", 429, true),
            Code::QueueFullDropLru => ("QUEUE_FULL_DROP_LRU", 429, true),
            Code::InvalidParams => ("INVALID_PARAMS", 400, false),
            Code::PoolUnready => ("POOL_UNREADY", 503, true),
            Code::PoolUnavailable => ("POOL_UNAVAILABLE", 503, true),
            Code::ReplicaExhausted => ("REPLICA_EXHAUSTED", 502, true),
            Code::DecodeTimeout => ("DECODE_TIMEOUT", 504, true),
            Code::WorkerReset => ("WORKER_RESET", 502, true),
            Code::Internal => ("INTERNAL", 500, true),
            Code::DeadlineUnmet => ("DEADLINE_UNMET", 422, false),
            Code::ModelDeprecated => ("MODEL_DEPRECATED", 410, false),
            Code::UntrustedArtifact => ("UNTRUSTED_ARTIFACT", 403, false),
            Code::QuotaExceeded => ("QUOTA_EXCEEDED", 429, true),
            Code::Unauthenticated => ("UNAUTHENTICATED", 401, false),
            Code::Forbidden => ("FORBIDDEN", 403, false),
            Code::NotFound => ("NOT_FOUND", 404, false),
            Code::Conflict => ("CONFLICT", 409, false),
            Code::Canceled => ("CANCELED", 409, false),
            Code::DeterminismDiverged => ("DETERMINISM_DIVERGED", 409, false),
        }
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Whether sending the same request again may help, where the error itself does not say otherwise.
    pub const fn retriable(self) -> bool {
        self.row().2
    }

    /// The HTTP status, where the error's reason does not call for a narrower one.
    pub const fn http_status(self) -> u16 {
        self.row().1
    }

    /// The code with that name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reasons of `INVALID_PARAMS` that HTTP has a narrower status for.
const STATUS_OF_REASON: &[(&str, u16)] = &[
    (reason::METHOD_NOT_ALLOWED, 405),
    (reason::BODY_TOO_LARGE, 413),
    (reason::MEDIA_TYPE, 415),
    (reason::HEADERS_TOO_LARGE, 431),
];

/// Values of `reason` that a client may act on.
pub mod reason {
    /// The route exists, the method does not.
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// The body is longer than the daemon takes.
    pub const BODY_TOO_LARGE: &str = "body_too_large";
    /// The body is not `application/json`.
    pub const MEDIA_TYPE: &str = "media_type";
    /// The header block is longer than the daemon takes.
    pub const HEADERS_TOO_LARGE: &str = "headers_too_large";
    /// The body has a field that the contract does not know.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// No pool serves that model.
    pub const UNKNOWN_MODEL: &str = "unknown_model";
    /// The prompt and `max_tokens` do not fit into the context.
    pub const CONTEXT_OVERFLOW: &str = "context_overflow";
    /// Strict determinism was asked for and no replica keeps it.
    pub const NO_REPRODUCIBLE_REPLICA: &str = "no_reproducible_replica";
    /// No token came within `first_token_ms`.
    pub const FIRST_TOKEN: &str = "first_token";
    /// The stream stood still for `idle_ms`.
    pub const IDLE: &str = "idle";
    /// The attempt took longer than `wall_ms`.
    pub const WALL: &str = "wall";
}

/// The error envelope: an HTTP body, and the data of the stream's `error` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, for people.
    pub message: String,
    /// The engine that was involved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Whether sending the same request again may help.
    pub retriable: bool,
    /// When to send it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The full-policy that turned the task away: `reject`, `drop-lru`, `shed-low-priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_label: Option<Cow<'static, str>>,
    /// A narrower reason within the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The id under which the daemon logged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The request field at fault; only the OpenAI envelope has a place for it.
    #[serde(skip)]
    pub param: Option<String>,
}

impl ErrorBody {
    /// An error with the code's own answer to whether it is retriable.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            engine: None,
            retriable: code.retriable(),
            retry_after_ms: None,
            policy_label: None,
            reason: None,
            hint: None,
            correlation_id: None,
            param: None,
        }
    }

    /// Overrides the code's answer to whether it is retriable.
    #[must_use]
    pub fn with_retriable(mut self, retriable: bool) -> Self {
        self.retriable = retriable;
        self
    }

    /// Names the narrower reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the engine that was involved.
    #[must_use]
    pub fn with_engine(mut self, engine: impl Into<String>) -> Self {
        self.engine = Some(engine.into());
        self
    }

    /// The HTTP status of a response that carries this envelope.
    pub fn http_status(&self) -> u16 {
        let narrower = self
            .reason
            .as_deref()
            .filter(|_| self.code == Code::InvalidParams);
        STATUS_OF_REASON
            .iter()
            .find(|(reason, _)| narrower == Some(reason))
            .map_or(self.code.http_status(), |(_, status)| *status)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn test_names_are_unique_and_found_again() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), 19);
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
        }
        assert_eq!(Code::from_name("NOPE"), None);
    }

    #[test]
    fn test_an_envelope_leaves_out_what_is_not_known() {
        let body = ErrorBody::new(Code::NotFound, "no task: 7");
        let json = serde_json::to_string(&body).unwrap();
        assert_eq!(
            json,
            r#"{"code":"NOT_FOUND","message":"no task: 7","retriable":false}"#
        );
    }

    #[test]
    fn test_an_error_can_override_its_codes_retriability() {
        let body = ErrorBody::new(Code::PoolUnavailable, "no replica")
            .with_reason(reason::NO_REPRODUCIBLE_REPLICA);
        assert!(body.retriable);
        assert!(!body.with_retriable(false).retriable);
    }

    #[test]
    fn test_a_reason_narrows_the_status_of_invalid_params_only() {
        let status = |code, why| ErrorBody::new(code, "x").with_reason(why).http_status();
        assert_eq!(status(Code::InvalidParams, reason::BODY_TOO_LARGE), 413);
        assert_eq!(status(Code::InvalidParams, reason::METHOD_NOT_ALLOWED), 405);
        assert_eq!(status(Code::InvalidParams, reason::UNKNOWN_MODEL), 400);
        assert_eq!(status(Code::Internal, reason::BODY_TOO_LARGE), 500);
    }
}
