//! Receipts: what was asked, what came out, who decoded it, and a signature over that.
//!
//! A signature is Ed25519 over the JCS of the receipt without its `signature` member (`key_id` is covered). Digests, keys
//! and signatures are lower-case hex and nothing else, so a receipt has one spelling. Field names are the contract's.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::jcs;
use crate::request::Level;
use crate::vocabulary::{FinishReason, Usage};

/// The proof of one task's output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receipt {
    /// The task, as a hyphenated uuid.
    pub task_id: String,
    /// R, in hex.
    pub request_digest: String,
    /// D(end), in hex.
    pub output_digest: String,
    /// How many output bytes D(end) covers.
    pub output_bytes: u64,
    /// The identity of the replica set, in hex.
    pub identity: String,
    /// What the identity is the hash of.
    pub identity_fields: Map<String, Value>,
    /// The seed that was used.
    pub seed: u32,
    /// Tokens used.
    pub usage: Usage,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The level that was kept.
    pub determinism: Level,
    /// Every upstream exchange, in order.
    pub attempts: Vec<ReceiptAttempt>,
    /// The token ids, where the engine gives all of them. They are not part of D.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// When what happened.
    pub times: ReceiptTimes,
    /// How many tasks the scheduler placed before this one, as it stood when this one was admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
}

/// One upstream exchange of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptAttempt {
    /// The replica.
    pub replica_id: String,
    /// How it ended.
    pub outcome: String,
}

/// Unix times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptTimes {
    /// The request was read.
    pub received_ms: u64,
    /// The first attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The first output arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The output was complete.
    pub ended_ms: u64,
}

impl Receipt {
    /// The receipt as the object that is signed.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // A struct of these types always serializes to an object.
            _ => Map::new(),
        }
    }
}

/// Why a receipt, or the key for one, is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// There is no signature to check.
    #[error("the receipt has no `signature`; `GET /v1/tasks/{{id}}/receipt` gives a signed one")]
    Unsigned,
    /// The receipt names another key.
    #[error(
        "the receipt's `key_id` is not the id of this public key; `GET /v1/receipt-keys` lists the keys"
    )]
    OtherKey,
    /// The signature does not belong to this receipt and key.
    #[error("the signature does not hold: the receipt was changed or was signed by another key")]
    BadSignature,
    /// The bytes are no key.
    #[error("a receipt key is 32 bytes in lower-case hex")]
    BadKey,
}

/// A key that signs receipts.
pub struct ReceiptKey {
    id: String,
    secret: SigningKey,
}

impl ReceiptKey {
    /// The key with these secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let secret = SigningKey::from_bytes(secret);
        Self {
            id: key_id(secret.verifying_key().as_bytes()),
            secret,
        }
    }

    /// The key with this secret in hex.
    pub fn from_secret_hex(secret: &str) -> Result<Self, ReceiptError> {
        exact_hex::<32>(secret)
            .map(|bytes| Self::from_secret(&bytes))
            .ok_or(ReceiptError::BadKey)
    }

    /// Its id: the first 16 hex digits of the hash of the public key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.secret.verifying_key().to_bytes()
    }
}

/// The id of a public key: the first 16 hex digits of its sha256.
pub fn key_id(public: &[u8; 32]) -> String {
    hex::encode(&Sha256::digest(public)[..8])
}

/// Identity of a replica set: sha256 over the JCS of its fields.
pub fn identity(fields: &Map<String, Value>) -> [u8; 32] {
    Sha256::digest(jcs::map_to_vec(fields)).into()
}

/// The receipt with `key_id` and `signature`. An older signature is replaced.
pub fn sign(receipt: &Map<String, Value>, key: &ReceiptKey) -> Map<String, Value> {
    let mut signed = receipt.clone();
    signed.remove("signature");
    signed.insert("key_id".to_owned(), Value::from(key.id()));
    let signature = key.secret.sign(&jcs::map_to_vec(&signed));
    signed.insert(
        "signature".to_owned(),
        Value::from(hex::encode(signature.to_bytes())),
    );
    signed
}

/// Checks a signed receipt against a public key.
pub fn verify(receipt: &Map<String, Value>, public: &[u8; 32]) -> Result<(), ReceiptError> {
    let signature = receipt.get("signature").ok_or(ReceiptError::Unsigned)?;
    if receipt.get("key_id").and_then(Value::as_str) != Some(key_id(public).as_str()) {
        return Err(ReceiptError::OtherKey);
    }
    let signature = signature
        .as_str()
        .and_then(exact_hex::<64>)
        .ok_or(ReceiptError::BadSignature)?;
    let verifier = VerifyingKey::from_bytes(public).map_err(|_| ReceiptError::BadKey)?;
    let mut unsigned = receipt.clone();
    unsigned.remove("signature");
    verifier
        .verify_strict(
            &jcs::map_to_vec(&unsigned),
            &Signature::from_bytes(&signature),
        )
        .map_err(|_| ReceiptError::BadSignature)
}

/// Bytes from lower-case hex of exactly their length.
pub fn exact_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn receipt() -> Receipt {
        let fields = json!({"engine": "llamacpp", "build": "b1", "ctx": 512});
        let fields = fields.as_object().unwrap().clone();
        Receipt {
            task_id: "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11".into(),
            request_digest: "00".repeat(32),
            output_digest: "11".repeat(32),
            output_bytes: 5,
            identity: hex::encode(identity(&fields)),
            identity_fields: fields,
            seed: 7,
            usage: Usage {
                tokens_in: 3,
                tokens_out: 2,
                tokens_cached: None,
            },
            finish_reason: FinishReason::Stop,
            determinism: Level::Strict,
            attempts: vec![ReceiptAttempt {
                replica_id: "tiny-0".into(),
                outcome: "finished".into(),
            }],
            token_ids: None,
            times: ReceiptTimes {
                received_ms: 1,
                started_ms: Some(2),
                first_token_ms: None,
                ended_ms: 3,
            },
            queue_position: Some(0),
        }
    }

    fn signed() -> (Map<String, Value>, ReceiptKey) {
        let key = ReceiptKey::from_secret(&[9; 32]);
        (sign(&receipt().to_map(), &key), key)
    }

    #[test]
    fn test_a_signed_receipt_holds_and_signing_again_changes_nothing() {
        let (signed, key) = signed();
        assert_eq!(verify(&signed, &key.public()), Ok(()));
        assert_eq!(sign(&signed, &key), signed);
    }

    #[test]
    fn test_the_first_published_vector_of_ed25519_holds() {
        // RFC 8032, 7.1, TEST 1: the secret and its public key.
        let key = ReceiptKey::from_secret_hex(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        )
        .unwrap();
        assert_eq!(
            hex::encode(key.public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn test_any_change_breaks_the_signature() {
        let (signed, key) = signed();
        for field in receipt().to_map().keys() {
            let mut changed = signed.clone();
            changed.insert(field.clone(), json!("changed"));
            assert_eq!(
                verify(&changed, &key.public()),
                Err(ReceiptError::BadSignature),
                "{field}"
            );
            changed.remove(field);
            assert_eq!(
                verify(&changed, &key.public()),
                Err(ReceiptError::BadSignature),
                "{field}"
            );
        }
        let mut added = signed.clone();
        added.insert("more".to_owned(), json!(1));
        assert_eq!(
            verify(&added, &key.public()),
            Err(ReceiptError::BadSignature)
        );
    }

    #[test]
    fn test_what_is_unsigned_or_of_another_key_or_spelt_otherwise_does_not_hold() {
        let (signed, key) = signed();
        assert_eq!(
            verify(&receipt().to_map(), &key.public()),
            Err(ReceiptError::Unsigned)
        );
        let other = ReceiptKey::from_secret(&[8; 32]);
        assert_eq!(
            verify(&signed, &other.public()),
            Err(ReceiptError::OtherKey)
        );
        let mut upper = signed.clone();
        let text = signed["signature"].as_str().unwrap().to_uppercase();
        upper.insert("signature".to_owned(), json!(text));
        assert_eq!(
            verify(&upper, &key.public()),
            Err(ReceiptError::BadSignature)
        );
        assert_eq!(
            ReceiptKey::from_secret_hex("ab").err(),
            Some(ReceiptError::BadKey)
        );
    }

    #[test]
    fn test_unknown_values_are_left_out() {
        let map = receipt().to_map();
        assert!(
            !map.contains_key("token_ids")
                && !map["times"]
                    .as_object()
                    .unwrap()
                    .contains_key("first_token_ms")
        );
        assert_eq!(map["determinism"], "strict");
    }
}
