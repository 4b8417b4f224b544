//! Accepting connections: bounded in number, in header size, in idle time; TCP_NODELAY on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use orchqueue_wire::errors::{Code, ErrorBody, reason};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service;

use super::caller::CorrelationId;
use super::stall::StallGuard;
use crate::config::ServerConfig;
use crate::daemon::{Daemon, StartError};

/// Opens the port.
///
/// # Errors
/// [`StartError::Bind`] with the address and the cause.
pub async fn bind(server: &ServerConfig) -> Result<TcpListener, StartError> {
    let address = format!("{}:{}", server.host, server.port);
    let listener = TcpListener::bind((server.host.as_str(), server.port)).await;
    listener.map_err(|cause| StartError::Bind { address, cause })
}

/// Serves until the daemon stops.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>) {
    let places = Arc::new(Semaphore::new(daemon.config.server.max_streams));
    let router = super::routes::router(Arc::clone(&daemon));
    loop {
        // A place is taken before the connection: what we can't serve waits in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = daemon.stopped.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, most likely: let some close.
                daemon.log_error("no connection could be accepted", &e);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (daemon, router) = (Arc::clone(&daemon), router.clone());
        tokio::spawn(async move {
            connection(&daemon, router, stream, peer).await;
            drop(place);
        });
    }
}

async fn connection(
    daemon: &Arc<Daemon>,
    router: axum::Router,
    stream: TcpStream,
    _peer: SocketAddr,
) {
    // A socket that refuses the option still works, only slower.
    let _ = stream.set_nodelay(true);
    let server = &daemon.config.server;
    let guarded = StallGuard::new(stream, Duration::from_millis(server.write_stall_ms));
    let daemon_of_service = Arc::clone(daemon);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let (mut router, daemon) = (router.clone(), Arc::clone(&daemon_of_service));
        async move {
            let correlation = CorrelationId::of(request.headers());
            let header = HeaderValue::from_str(correlation.as_str());
            let most = daemon.config.server.max_header_bytes;
            let mut answer = if header_bytes(request.headers()) > most {
                headers_too_large(most, correlation.as_str())
            } else {
                request.extensions_mut().insert(correlation);
                router.call(request).await?
            };
            if let Ok(value) = header {
                answer.headers_mut().insert("x-correlation-id", value);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(server.idle_ms))
        // Twice the limit: what is over it is answered in our words; far beyond it hyper closes by itself.
        .max_buf_size((server.max_header_bytes * 2).max(16 << 10))
        .max_headers(256)
        .keep_alive(true);
    let served = builder.serve_connection(TokioIo::new(guarded), service);
    tokio::select! {
        // A connection that breaks is the client's business.
        _ = served => {}
        () = daemon.stopped.cancelled() => {}
    }
}

fn header_bytes(headers: &http::HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

fn headers_too_large(most: usize, correlation: &str) -> axum::response::Response {
    let mut body = ErrorBody::new(
        Code::InvalidParams,
        format!("the headers are larger than {most} bytes"),
    )
    .with_reason(reason::HEADERS_TOO_LARGE)
    .with_hint("send less, or raise `server.max_header_bytes`");
    body.correlation_id = Some(correlation.to_owned());
    super::respond::error_response(body, None)
}
