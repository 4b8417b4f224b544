//! Who asks: the correlation id of a request and, verified before anything else is read, its principal.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, header};
use orchqueue_wire::errors::{Code, ErrorBody};

use super::openai;
use super::respond::error_response;
use crate::daemon::Daemon;
use crate::keys::{AuthError, Principal};

/// The id under which a request is found in answers and logs.
#[derive(Clone, Debug)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// The client's own id if it is harmless, else a new one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get("x-correlation-id")
            .and_then(|v| v.to_str().ok());
        let harmless = |id: &&str| {
            !id.is_empty()
                && id.len() <= 64
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        Self(
            given
                .filter(harmless)
                .map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into),
        )
    }

    /// The one that the front has settled on for this request.
    #[must_use]
    pub fn of_request(extensions: &http::Extensions, headers: &HeaderMap) -> Self {
        extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self::of(headers))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// A verified request: everything but `/healthz` and `/readyz` needs one.
pub struct Caller {
    pub principal: Principal,
    pub correlation: CorrelationId,
}

impl Caller {
    /// # Errors
    /// `FORBIDDEN` for a principal that may only look.
    pub fn must_submit(&self) -> Result<(), ErrorBody> {
        if self.principal.may_submit() {
            return Ok(());
        }
        Err(
            ErrorBody::new(Code::Forbidden, "the role `viewer` may not change anything").with_hint(
                "use a key with the role `operator`: `orchqueue key create --role operator`",
            ),
        )
    }
}

/// The id in a path, as text.
pub struct Id(pub String);

impl FromRequestParts<Arc<Daemon>> for Id {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        daemon: &Arc<Daemon>,
    ) -> Result<Self, Self::Rejection> {
        match Path::<String>::from_request_parts(parts, daemon).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => {
                let mut body =
                    ErrorBody::new(Code::InvalidParams, "the id in the path is not text");
                let correlation = CorrelationId::of_request(&parts.extensions, &parts.headers);
                body.correlation_id = Some(correlation.as_str().to_owned());
                Err(error_response(body, None))
            }
        }
    }
}

impl FromRequestParts<Arc<Daemon>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        daemon: &Arc<Daemon>,
    ) -> Result<Self, Self::Rejection> {
        let correlation = CorrelationId::of_request(&parts.extensions, &parts.headers);
        match principal(&parts.headers, daemon).await {
            Ok(principal) => Ok(Self {
                principal,
                correlation,
            }),
            Err(mut body) => {
                body.correlation_id = Some(correlation.as_str().to_owned());
                Err(if openai::is_door(parts.uri.path()) {
                    openai::refusal(&body, None)
                } else {
                    error_response(body, None)
                })
            }
        }
    }
}

async fn principal(headers: &HeaderMap, daemon: &Arc<Daemon>) -> Result<Principal, ErrorBody> {
    let table = daemon.keys.table().await.map_err(refusal)?;
    if table.is_open() && !only_local(headers) {
        // A page in somebody's browser must not reach an open daemon through a name that resolves to it.
        return Err(ErrorBody::new(
            Code::Forbidden,
            "without API keys only local pages and programs are served",
        )
        .with_reason("host_not_loopback")
        .with_hint("create a key with `orchqueue key create`, or use http://127.0.0.1"));
    }
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    table.verify(authorization).map_err(refusal)
}

fn refusal(error: AuthError) -> ErrorBody {
    match error {
        AuthError::Missing => ErrorBody::new(Code::Unauthenticated, "an API key is needed")
            .with_hint("send `Authorization: Bearer oq_…`; make a key with `orchqueue key create`"),
        AuthError::Invalid => ErrorBody::new(Code::Unauthenticated, "the API key is not valid")
            .with_hint("see `orchqueue key list`; make a new one with `orchqueue key create`"),
        AuthError::NotYetKnown => ErrorBody::new(Code::Internal, "the keys have not been read yet")
            .with_reason("starting")
            .with_hint("see the log of the daemon; then send it again"),
    }
}

/// `Host` and `Origin`, where given, name this machine.
fn only_local(headers: &HeaderMap) -> bool {
    let local = |authority: &str| {
        let host = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(""),
            None => authority.split(':').next().unwrap_or(""),
        };
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    };
    let text = |name| {
        headers
            .get(name)
            .map(|v: &http::HeaderValue| v.to_str().unwrap_or("?"))
    };
    let host = text(header::HOST).is_none_or(local);
    let origin = text(header::ORIGIN).is_none_or(|o| {
        o.split_once("://")
            .is_some_and(|(_, authority)| local(authority))
    });
    host && origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for good in [
            "127.0.0.1:8700",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8700",
            "127.8.9.1",
        ] {
            assert!(only_local(&headers(&[("host", good)])), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "[::2]",
        ] {
            assert!(!only_local(&headers(&[("host", bad)])), "{bad}");
        }
        assert!(!only_local(&headers(&[
            ("host", "localhost"),
            ("origin", "https://evil.example")
        ])));
        assert!(!only_local(&headers(&[
            ("host", "localhost"),
            ("origin", "null")
        ])));
        assert!(only_local(&headers(&[
            ("host", "localhost"),
            ("origin", "http://localhost:5173")
        ])));
    }

    #[test]
    fn a_correlation_id_is_taken_only_if_it_is_harmless() {
        assert_eq!(
            CorrelationId::of(&headers(&[("x-correlation-id", "abc-1")])).as_str(),
            "abc-1"
        );
        assert_ne!(
            CorrelationId::of(&headers(&[("x-correlation-id", "a b{}")])).as_str(),
            "a b{}"
        );
    }
}
