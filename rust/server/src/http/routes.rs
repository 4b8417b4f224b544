//! What Rust answers itself. Everything else is the control app's.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use orchqueue_wire::errors::{Code, ErrorBody, reason};
use serde_json::json;

use super::caller::{Caller, CorrelationId};
use super::respond::{error_response, json_response};
use super::{control, openai, tasks};
use crate::daemon::Daemon;

/// The table of routes.
pub fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/tasks", post(tasks::submit).get(control::forward))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/tasks/{id}/stream", get(tasks::stream))
        .route("/v1/tasks/{id}/receipt", get(tasks::receipt))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route(
            "/v1/sessions/{id}",
            get(tasks::session).delete(tasks::close_session),
        )
        .route("/v1/receipt-keys", get(receipt_keys))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completion))
        .route("/v1/models", get(openai::models))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(control::forward)
        .with_state(daemon)
}

async fn healthz(State(daemon): State<Arc<Daemon>>) -> Response {
    json_response(
        StatusCode::OK,
        &json!({"status": "ok", "version": daemon.config.version}),
    )
}

/// Ready once the journal is recovered; pools report by their health.
async fn readyz(State(daemon): State<Arc<Daemon>>) -> Response {
    if daemon.draining() {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "draining"}),
        );
    }
    if !daemon.recovered() {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "starting"}),
        );
    }
    json_response(StatusCode::OK, &json!({"status": "ready"}))
}

async fn receipt_keys(State(daemon): State<Arc<Daemon>>, _caller: Caller) -> Response {
    json_response(StatusCode::OK, &daemon.receipt_keys.published())
}

async fn method_not_allowed(request: Request) -> Response {
    let mut body = ErrorBody::new(Code::InvalidParams, "this path does not take this method")
        .with_reason(reason::METHOD_NOT_ALLOWED)
        .with_hint("the `Allow` header lists the methods");
    let correlation = CorrelationId::of_request(request.extensions(), request.headers());
    body.correlation_id = Some(correlation.as_str().to_owned());
    error_response(body, None)
}
