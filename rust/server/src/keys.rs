//! API keys: who asks, verified on every request before anything else is read.
//!
//! A key is `oq_<key_id>_<secret>`; stored is HMAC-SHA256(pepper, secret). Until the store has been read the
//! table is unknown and requests wait: the front door opens early, but never unauthenticated.

use std::collections::HashMap;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    Operator,
    Approver,
    Viewer,
}

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Viewer => "viewer",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Principal {
    pub tenant: Arc<str>,
    pub roles: Arc<[Role]>,
    /// `None` in open mode.
    pub key_id: Option<Arc<str>>,
}

impl Principal {
    /// Any role but a lone `viewer` may submit and cancel.
    #[must_use]
    pub fn may_submit(&self) -> bool {
        self.roles.iter().any(|r| *r != Role::Viewer)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDoc {
    key_id: String,
    hmac_hex: String,
    tenant: String,
    roles: Vec<Role>,
}

struct Entry {
    hmac: Vec<u8>,
    principal: Principal,
}

/// All keys of the store; replaced as a whole.
pub struct KeyTable {
    pepper: Vec<u8>,
    keys: HashMap<String, Entry>,
    open: Option<Principal>,
}

/// Why a request has no principal. The public message never says which part was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    Missing,
    Invalid,
    NotYetKnown,
}

impl KeyTable {
    /// `loopback`: with no key stored, everybody on this machine is the default tenant.
    ///
    /// # Errors
    /// A message when a field is not hexadecimal.
    pub fn new(pepper_hex: &str, docs: Vec<KeyDoc>, loopback: bool) -> Result<Self, String> {
        let pepper =
            hex::decode(pepper_hex).map_err(|_| "`pepper_hex`: not hexadecimal".to_owned())?;
        let open = (docs.is_empty() && loopback).then(|| Principal {
            tenant: "default".into(),
            roles: [Role::Admin].into(),
            key_id: None,
        });
        let mut keys = HashMap::new();
        for doc in docs {
            let hmac = hex::decode(&doc.hmac_hex)
                .map_err(|_| format!("`hmac_hex` of `{}`: not hexadecimal", doc.key_id))?;
            let principal = Principal {
                tenant: doc.tenant.into(),
                roles: doc.roles.into(),
                key_id: Some(doc.key_id.as_str().into()),
            };
            keys.insert(doc.key_id, Entry { hmac, principal });
        }
        Ok(Self { pepper, keys, open })
    }

    /// Everybody may come in (no key stored, loopback).
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Who the `Authorization` header stands for.
    ///
    /// # Errors
    /// [`AuthError`]
    pub fn verify(&self, authorization: Option<&str>) -> Result<Principal, AuthError> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let header = authorization.ok_or(AuthError::Missing)?;
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, t)| t.trim());
        let (key_id, secret) = token
            .and_then(|t| t.strip_prefix("oq_"))
            .and_then(|t| t.split_once('_'))
            .ok_or(AuthError::Invalid)?;
        let entry = self.keys.get(key_id).ok_or(AuthError::Invalid)?;
        let digest = hash_secret(&self.pepper, secret);
        if bool::from(digest.as_slice().ct_eq(&entry.hmac)) {
            Ok(entry.principal.clone())
        } else {
            Err(AuthError::Invalid)
        }
    }
}

/// HMAC-SHA256(pepper, secret).
#[must_use]
pub fn hash_secret(pepper: &[u8], secret: &str) -> [u8; 32] {
    // HMAC takes a key of any length; the error type exists for other constructions.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(pepper) else {
        return [0; 32];
    };
    mac.update(secret.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The current table and a way to wait for the first one.
pub struct Keys {
    table: watch::Sender<Option<Arc<KeyTable>>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            table: watch::channel(None).0,
        }
    }
}

/// How long a request waits for the store to be read.
const WAIT: std::time::Duration = std::time::Duration::from_secs(15);

impl Keys {
    pub fn set(&self, table: KeyTable) {
        self.table.send_replace(Some(Arc::new(table)));
    }

    /// The table, once there is one.
    ///
    /// # Errors
    /// [`AuthError::NotYetKnown`] when the store was not read in time.
    pub async fn table(&self) -> Result<Arc<KeyTable>, AuthError> {
        if let Some(table) = self.table.borrow().as_ref() {
            return Ok(Arc::clone(table));
        }
        let mut changes = self.table.subscribe();
        let found = tokio::time::timeout(WAIT, changes.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(table)) => table.as_ref().map(Arc::clone).ok_or(AuthError::NotYetKnown),
            _ => Err(AuthError::NotYetKnown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(loopback: bool, with_key: bool) -> KeyTable {
        let docs = if with_key {
            vec![KeyDoc {
                key_id: "abc".into(),
                hmac_hex: hex::encode(hash_secret(&[1, 2], "s3cret_x")),
                tenant: "acme".into(),
                roles: vec![Role::Viewer],
            }]
        } else {
            Vec::new()
        };
        KeyTable::new("0102", docs, loopback).unwrap()
    }

    // req: ORCH-4040
    #[test]
    fn a_right_key_names_its_tenant_and_roles() {
        let who = table(true, true)
            .verify(Some("Bearer oq_abc_s3cret_x"))
            .unwrap();
        assert_eq!(&*who.tenant, "acme");
        assert!(!who.may_submit());
    }

    #[test]
    fn anything_else_is_refused() {
        let t = table(true, true);
        for header in [
            "Bearer oq_abc_wrong",
            "Bearer oq_zzz_s3cret_x",
            "Basic oq_abc_s3cret_x",
            "oq_abc_s3cret_x",
            "",
        ] {
            assert_eq!(
                t.verify(Some(header)).unwrap_err(),
                AuthError::Invalid,
                "{header}"
            );
        }
        assert_eq!(t.verify(None).unwrap_err(), AuthError::Missing);
    }

    // req: ORCH-4041
    #[test]
    fn without_keys_only_loopback_is_open() {
        assert!(table(true, false).verify(None).is_ok());
        assert_eq!(
            table(false, false).verify(None).unwrap_err(),
            AuthError::Missing
        );
    }
}
