//! Answers: JSON, errors with their one status table, the back-pressure headers (ORCH-2007).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use orchqueue_core::Forecast;
use orchqueue_wire::errors::{Code, ErrorBody};
use serde_json::Value;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A JSON answer.
#[must_use]
pub fn json_response(status: StatusCode, value: &Value) -> Response {
    bytes_response(status, value.to_string().into_bytes())
}

/// An answer of ready-made JSON.
#[must_use]
pub fn bytes_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

/// `204`.
#[must_use]
pub fn no_content() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// The envelope with its status; a 429 tells when to come back and how long the queue is.
#[must_use]
pub fn error_response(body: ErrorBody, forecast: Option<Forecast>) -> Response {
    let payload = serde_json::to_vec(&body).unwrap_or_default();
    let mut answer = bytes_response(status_of(&body), payload);
    add_backpressure(&mut answer, &body, forecast);
    answer
}

/// The status of an envelope.
#[must_use]
pub fn status_of(body: &ErrorBody) -> StatusCode {
    StatusCode::from_u16(body.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// `Retry-After`, `X-Backoff-Ms` wherever the error says when; the queue's state with a 429.
pub fn add_backpressure(answer: &mut Response, body: &ErrorBody, forecast: Option<Forecast>) {
    let status = answer.status();
    let headers = answer.headers_mut();
    if let Some(ms) = body.retry_after_ms {
        headers.insert(header::RETRY_AFTER, ms.div_ceil(1000).max(1).into());
        headers.insert("x-backoff-ms", ms.into());
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        let forecast = forecast.unwrap_or_default();
        headers.insert("x-queue-position", forecast.position.into());
        headers.insert(
            "x-queue-eta-ms",
            forecast
                .start_ms
                .or(body.retry_after_ms)
                .unwrap_or(0)
                .into(),
        );
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// `NOT_FOUND` for a thing of this daemon.
#[must_use]
pub fn not_found(what: &str) -> ErrorBody {
    ErrorBody::new(Code::NotFound, format!("no such {what}"))
        .with_hint("ids are scoped to the tenant of the key, and kept for `store.retention`")
}
