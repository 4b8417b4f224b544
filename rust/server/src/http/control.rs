//! Everything that Rust does not answer goes to the Python control app, over a Unix socket that only this
//! user can open. The principal travels in headers that Rust sets; what a client sends under those names is dropped.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper_util::rt::TokioIo;
use orchqueue_wire::errors::{Code, ErrorBody};
use tokio::net::UnixStream;

use super::caller::Caller;
use super::respond::{error_response, not_found};
use crate::daemon::Daemon;

/// How long a request waits for the control app at start-up.
const STARTING: Duration = Duration::from_secs(15);

/// Headers that end at a proxy (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Passes the request on, and the answer back as it comes.
pub async fn forward(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    request: Request,
) -> Response {
    let Some(socket) = daemon.config.control_socket.as_deref() else {
        return error_response(
            not_found("path").with_hint("see `contracts/openapi` for the paths"),
            None,
        );
    };
    let answered = match connect(&daemon, socket).await {
        Ok(stream) => exchange(&daemon, stream, &caller, request).await,
        Err(e) => Err(e.to_string()),
    };
    answered.unwrap_or_else(|cause| {
        daemon.log_error("the control app does not answer", &cause);
        let mut body = ErrorBody::new(Code::Internal, "the control plane does not answer")
            .with_reason("control_unreachable")
            .with_hint("see the log of the daemon; then send it again");
        body.correlation_id = Some(caller.correlation.as_str().to_owned());
        error_response(body, None)
    })
}

/// The control app loads after the front door has opened: wait for its socket.
async fn connect(daemon: &Daemon, socket: &str) -> std::io::Result<UnixStream> {
    let until = tokio::time::Instant::now() + STARTING;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) if tokio::time::Instant::now() > until || daemon.draining() => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn exchange(
    daemon: &Arc<Daemon>,
    stream: UnixStream,
    caller: &Caller,
    mut request: Request,
) -> Result<Response, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let stopped = daemon.stopped.clone();
    tokio::spawn(async move {
        tokio::select! {
            // Its errors reach us through the sender.
            _ = connection => {}
            () = stopped.cancelled() => {}
        }
    });
    identify(request.headers_mut(), caller);
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    *request.uri_mut() = path
        .parse()
        .map_err(|_| "the path is not valid".to_owned())?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = answer.map(Body::new);
    strip(answer.headers_mut());
    Ok(answer)
}

fn strip(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn identify(headers: &mut HeaderMap, caller: &Caller) {
    strip(headers);
    headers.remove(header::AUTHORIZATION);
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|n| n.as_str().starts_with("x-orchqueue-"))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
    let roles: Vec<&str> = caller.principal.roles.iter().map(|r| r.as_str()).collect();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("x-orchqueue-tenant", &caller.principal.tenant);
    set("x-orchqueue-roles", &roles.join(","));
    set(
        "x-orchqueue-key-id",
        caller.principal.key_id.as_deref().unwrap_or(""),
    );
    set("x-correlation-id", caller.correlation.as_str());
}
