//! The receipt of a finished task, and the keys that sign it.

use orchqueue_wire::reader::EngineEnd;
use orchqueue_wire::receipt::{Receipt, ReceiptAttempt, ReceiptKey, ReceiptTimes, sign};
use orchqueue_wire::request::Level;
use serde_json::{Value, json};

use crate::clock::wall_ms;
use crate::config::ReceiptKeyDoc;
use crate::daemon::Daemon;
use crate::task::{Run, Task};

/// What the end of the stream proves.
pub struct Proof<'a> {
    pub end: &'a EngineEnd,
    /// Output bytes.
    pub length: u64,
    /// D(end).
    pub digest: [u8; 32],
    pub ended_ms: u64,
}

/// The unsigned receipt (determinism.md).
#[must_use]
pub fn unsigned(task: &Task, run: &Run, proof: &Proof<'_>) -> Value {
    let last = run.attempts.last();
    let kept = task.level() == Level::Strict && last.is_some_and(|a| a.replica.reproducible);
    let receipt = Receipt {
        task_id: task.id(),
        request_digest: hex::encode(task.transcript.request_digest()),
        output_digest: hex::encode(proof.digest),
        output_bytes: proof.length,
        identity: last
            .map(|a| a.replica.identity.to_string())
            .unwrap_or_default(),
        identity_fields: last
            .map(|a| a.replica.identity_fields.clone())
            .unwrap_or_default(),
        seed: task.seed,
        usage: proof.end.usage,
        finish_reason: proof.end.finish_reason,
        determinism: if kept {
            Level::Strict
        } else {
            Level::BestEffort
        },
        attempts: run
            .attempts
            .iter()
            .map(|a| ReceiptAttempt {
                replica_id: a.replica.name.to_string(),
                outcome: a.outcome.to_owned(),
            })
            .collect(),
        token_ids: proof.end.ids.clone(),
        times: ReceiptTimes {
            received_ms: wall_ms(task.received),
            started_ms: run.attempts.first().map(|a| wall_ms(a.started)),
            first_token_ms: run.attempts.iter().find_map(|a| a.first_token).map(wall_ms),
            ended_ms: proof.ended_ms,
        },
        queue_position: Some(u64::from(run.forecast.position)),
    };
    Value::Object(receipt.to_map())
}

/// The signing key and every public key that may still be asked for.
#[derive(Default)]
pub struct ReceiptKeys {
    active: Option<ReceiptKey>,
    published: Vec<Value>,
}

impl ReceiptKeys {
    /// # Errors
    /// A message naming the key that can't be read.
    pub fn new(docs: &[ReceiptKeyDoc]) -> Result<Self, String> {
        let mut keys = Self::default();
        for doc in docs {
            let secret = doc
                .secret_hex
                .as_deref()
                .map(ReceiptKey::from_secret_hex)
                .transpose();
            let secret = secret.map_err(|e| format!("receipt key `{}`: {e}", doc.key_id))?;
            let public = match (&secret, &doc.public_hex) {
                (Some(key), _) => hex::encode(key.public()),
                (None, Some(public)) => public.clone(),
                (None, None) => {
                    return Err(format!(
                        "receipt key `{}`: neither `secret_hex` nor `public_hex`",
                        doc.key_id
                    ));
                }
            };
            keys.published.push(json!({"key_id": doc.key_id, "algorithm": "Ed25519", "public_hex": public, "active": doc.active}));
            if doc.active {
                keys.active = secret;
            }
        }
        Ok(keys)
    }

    /// `GET /v1/receipt-keys`.
    #[must_use]
    pub fn published(&self) -> Value {
        json!({"keys": self.published})
    }
}

impl Daemon {
    /// The receipt with `key_id` and `signature`; nothing when no key is active.
    #[must_use]
    pub fn sign(&self, receipt: &Value) -> Option<Value> {
        let key = self.receipt_keys.active.as_ref()?;
        Some(Value::Object(sign(receipt.as_object()?, key)))
    }
}
