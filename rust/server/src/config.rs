//! The runtime document: what the Python side hands over at start, already validated there once.
//!
//! The file form that users write (and its defaults) lives in `python/orchqueue/config.py`; this is the
//! runtime form. Both sides refuse unknown keys.

use std::net::IpAddr;

use serde::Deserialize;

use orchqueue_core as core;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    pub server: ServerConfig,
    pub journal: JournalConfig,
    pub retention: Retention,
    pub classes: Vec<ClassDoc>,
    pub session: SessionDoc,
    pub attempts: AttemptsDoc,
    /// Unix socket of the Python control app; `None` = what Rust does not route is 404.
    #[serde(default)]
    pub control_socket: Option<String>,
    #[serde(default)]
    pub receipt_keys: Vec<ReceiptKeyDoc>,
    pub version: String,
    /// Prompts and outputs may appear in logs.
    #[serde(default)]
    pub log_content: bool,
    /// A line per ended task.
    #[serde(default = "yes")]
    pub log_tasks: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub host: String,
    pub port: u16,
    #[serde(default)]
    pub behind_tls: bool,
    #[serde(default = "default_body")]
    pub max_body_bytes: usize,
    #[serde(default = "default_header")]
    pub max_header_bytes: usize,
    /// Most open client connections.
    #[serde(default = "default_streams")]
    pub max_streams: usize,
    /// A connection without a request is closed after this.
    #[serde(default = "default_idle")]
    pub idle_ms: u64,
    /// A reader that takes nothing for so long is cut off.
    #[serde(default = "default_stall")]
    pub write_stall_ms: u64,
    /// Silence on a stream is broken by a comment after this.
    #[serde(default = "default_heartbeat")]
    pub heartbeat_ms: u64,
    /// How long a one-trip task lives without a reader.
    #[serde(default = "default_grace")]
    pub grace_ms: u64,
    /// Threads of the front door; 0 = one per core, at most 4.
    #[serde(default)]
    pub threads: usize,
}

fn default_body() -> usize {
    8 << 20
}
fn default_header() -> usize {
    32 << 10
}
fn default_streams() -> usize {
    20_000
}
fn default_idle() -> u64 {
    75_000
}
fn default_stall() -> u64 {
    10_000
}
fn default_heartbeat() -> u64 {
    10_000
}
fn default_grace() -> u64 {
    10_000
}

impl ServerConfig {
    /// Only this machine can reach the daemon.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    pub path: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub hours: f64,
    pub max_mb: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassDoc {
    pub name: String,
    pub weight: u32,
    pub capacity: usize,
    pub full_policy: PolicyDoc,
    #[serde(default)]
    pub max_wait_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDoc {
    Reject,
    DropLru,
    ShedLowPriority,
}

impl From<PolicyDoc> for core::FullPolicy {
    fn from(doc: PolicyDoc) -> Self {
        match doc {
            PolicyDoc::Reject => Self::Reject,
            PolicyDoc::DropLru => Self::DropLru,
            PolicyDoc::ShedLowPriority => Self::ShedLowPriority,
        }
    }
}

/// The label of a full policy in headers, metrics and the envelope (ORCH-2007).
#[must_use]
pub fn policy_label(policy: core::FullPolicy) -> &'static str {
    match policy {
        core::FullPolicy::Reject => "reject",
        core::FullPolicy::DropLru => "drop-lru",
        core::FullPolicy::ShedLowPriority => "shed-low-priority",
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionDoc {
    pub ttl_ms: u64,
    pub max_turns: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptsDoc {
    pub max: u32,
    pub reclaim_ms: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptKeyDoc {
    pub key_id: String,
    /// 32 bytes; absent for a key that only verifies any more.
    #[serde(default)]
    pub secret_hex: Option<String>,
    #[serde(default)]
    pub public_hex: Option<String>,
    #[serde(default)]
    pub active: bool,
}

impl std::fmt::Debug for ReceiptKeyDoc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptKeyDoc")
            .field("key_id", &self.key_id)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the runtime document can't be read: {0}")]
    Document(#[from] serde_json::Error),
    #[error("`{field}`: {message}")]
    Value {
        field: &'static str,
        message: String,
    },
}

impl RuntimeConfig {
    /// Parses and checks the document.
    ///
    /// # Errors
    /// [`ConfigError`] names the field and the bound.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(json)?;
        let bad = |field, message: &str| {
            Err(ConfigError::Value {
                field,
                message: message.to_owned(),
            })
        };
        if config.classes.is_empty() || config.classes.len() > 16 {
            return bad("classes", "between 1 and 16 classes are needed");
        }
        if config
            .classes
            .iter()
            .any(|c| c.weight == 0 || c.capacity == 0)
        {
            return bad("classes", "`weight` and `capacity` must be at least 1");
        }
        if config.session.ttl_ms > 600_000 || config.session.ttl_ms == 0 {
            return bad("session.ttl_ms", "between 1 and 600000 (10 minutes)");
        }
        if config.session.max_turns == 0 || config.session.max_turns > 8 {
            return bad("session.max_turns", "between 1 and 8");
        }
        if config.attempts.max == 0 || config.attempts.max > 10 {
            return bad("attempts.max", "between 1 and 10");
        }
        if !(config.retention.hours > 0.0 && config.retention.hours <= 24.0 * 366.0) {
            return bad("retention.hours", "more than 0 and at most 8784");
        }
        Ok(config)
    }

    /// The scheduler's part.
    #[must_use]
    pub fn core(&self) -> core::Config {
        core::Config {
            classes: self
                .classes
                .iter()
                .map(|c| core::ClassConfig {
                    weight: c.weight,
                    capacity: c.capacity,
                    full_policy: c.full_policy.into(),
                    max_wait_ms: c.max_wait_ms,
                })
                .collect(),
            session_ttl_ms: self.session.ttl_ms,
            session_max_turns: self.session.max_turns,
            max_attempts: self.attempts.max,
            reclaim_ms: self.attempts.reclaim_ms,
            prices: core::TokenPrices::default(),
        }
    }
}
