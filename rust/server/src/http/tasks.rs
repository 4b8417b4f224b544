//! OrchQueue v1: submit, look, follow, cancel; sessions (ORCH-2001 … ORCH-2005).

use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use orchqueue_core::{Forecast, Input, SessionKey};
use orchqueue_wire::digest::EventId;
use orchqueue_wire::errors::{Code, ErrorBody, reason};
use orchqueue_wire::request::{parse_task, parse_uuid};
use serde_json::{Value, json};

use super::caller::{Caller, Id};
use super::respond::{
    EVENT_STREAM, add_backpressure, error_response, json_response, no_content, not_found,
};
use super::stream::{Reader, StreamBody};
use crate::admission::{Refused, Submission, Submitted};
use crate::daemon::Daemon;
use crate::journal::Key;
use crate::task::{Door, Task};
use crate::transcript::{Cursor, ResumeError, Terminal};

/// How long a client may take to send its body.
const BODY: Duration = Duration::from_secs(30);

/// An error on its way to a client.
pub struct Failure {
    body: Box<ErrorBody>,
    forecast: Option<Forecast>,
}

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self {
            body: Box::new(body),
            forecast: None,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self {
            body: refused.body,
            forecast: refused.forecast,
        }
    }
}

impl Failure {
    /// The envelope, to be told in another protocol's words.
    #[must_use]
    pub fn into_parts(self) -> (ErrorBody, Option<Forecast>) {
        (*self.body, self.forecast)
    }

    fn answer(self, caller: &Caller) -> Response {
        let mut body = *self.body;
        body.correlation_id
            .get_or_insert_with(|| caller.correlation.as_str().to_owned());
        error_response(body, self.forecast)
    }
}

/// `POST /v1/tasks` (ORCH-2001).
pub async fn submit(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    request: Request,
) -> Response {
    match submitted(&daemon, &caller, request).await {
        Ok(answer) => answer,
        Err(failure) => failure.answer(&caller),
    }
}

async fn submitted(
    daemon: &Arc<Daemon>,
    caller: &Caller,
    request: Request,
) -> Result<Response, Failure> {
    caller.must_submit()?;
    let received = daemon.clock.now();
    let (parts, body) = request.into_parts();
    let body = read_body(daemon, &parts.headers, body).await?;
    let wants_stream = accepts(&parts.headers, "text/event-stream");
    let request = parse_task(&body).map_err(ErrorBody::from)?;
    let wait = request.wait;
    let door = if wants_stream || wait {
        Door::OneTrip
    } else {
        Door::Queued
    };
    let from = last_event_id(&parts.headers)?;
    let submission = Submission {
        tenant: Arc::clone(&caller.principal.tenant),
        request,
        body,
        door,
        correlation_id: caller.correlation.shared(),
        received,
        recovered: None,
    };
    let (task, forecast) = match daemon.submit(submission).await? {
        Submitted::New(task, forecast) => (task, forecast),
        Submitted::Existing(task) => {
            let forecast = daemon.forecast(&task);
            (task, forecast)
        }
    };
    if wants_stream {
        return streamed(daemon, &task, forecast, from);
    }
    if wait {
        return Ok(finished(daemon, task).await);
    }
    Ok(json_response(
        StatusCode::ACCEPTED,
        &json!({
            "task_id": task.id(),
            "queue_position": forecast.position,
            "predicted_start_ms": forecast.start_ms,
            "backoff_ms": 0,
        }),
    ))
}

/// The body, bounded in size and time, and only as JSON.
pub(super) async fn read_body(
    daemon: &Daemon,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ErrorBody> {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(
            ErrorBody::new(Code::InvalidParams, "the body must be `application/json`")
                .with_reason(reason::MEDIA_TYPE)
                .with_hint("send `Content-Type: application/json`"),
        );
    }
    let most = daemon.config.server.max_body_bytes;
    match tokio::time::timeout(BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(ErrorBody::new(
            Code::InvalidParams,
            format!("the body is larger than {most} bytes"),
        )
        .with_reason(reason::BODY_TOO_LARGE)
        .with_hint("send less, or raise `server.max_body_bytes`")),
        Ok(Err(_)) => Err(ErrorBody::new(
            Code::InvalidParams,
            "the body broke off before its end",
        )),
        Err(_) => Err(ErrorBody::new(
            Code::InvalidParams,
            "the body did not come in time",
        )),
    }
}

fn accepts(headers: &HeaderMap, media: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.contains(media))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, ErrorBody> {
    let Some(value) = headers.get("last-event-id").filter(|v| !v.is_empty()) else {
        return Ok(None);
    };
    let id = value
        .to_str()
        .ok()
        .and_then(|text| EventId::from_str(text).ok());
    id.map(Some).ok_or_else(|| {
        ErrorBody::new(
            Code::InvalidParams,
            "`Last-Event-ID`: not an id of this stream",
        )
        .with_reason("bad_event_id")
        .with_hint("send the id of the last event that you have seen, or leave the header out")
    })
}

/// The stream of a task, from the beginning or from where the client left it.
fn streamed(
    daemon: &Arc<Daemon>,
    task: &Arc<Task>,
    forecast: Forecast,
    from: Option<EventId>,
) -> Result<Response, Failure> {
    let (cursor, pending) = match from.map(|id| (id, task.transcript.locate(id))) {
        None => (Cursor::default(), None),
        Some((_, Ok(cursor))) => (cursor, None),
        Some((id, Err(ResumeError::NotYet))) => (Cursor::default(), Some(id)),
        Some((_, Err(ResumeError::Complete))) => return Ok(no_content()),
        Some((_, Err(ResumeError::Mismatch))) => return Err(not_the_beginning().into()),
    };
    let reader = Reader::new(Arc::clone(daemon), Arc::clone(task));
    let body = StreamBody::orchqueue(reader, cursor, pending, from.map(|id| id.k), forecast);
    let mut answer = Response::new(Body::new(body));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(
        header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-store"),
    );
    headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    if let Ok(id) = http::HeaderValue::from_str(&task.id()) {
        headers.insert("x-orchqueue-task-id", id);
    }
    Ok(answer)
}

/// A reader that was elsewhere.
pub(super) fn not_the_beginning() -> ErrorBody {
    ErrorBody::new(
        Code::DeterminismDiverged,
        "what you have seen is not the beginning of this stream",
    )
    .with_hint("read the stream from its beginning, without `Last-Event-ID`")
}

/// Waits for the end of a task; a client that leaves meanwhile counts as a reader that left.
pub(super) async fn ended(daemon: &Arc<Daemon>, task: &Arc<Task>) -> Terminal {
    let reader = Reader::new(Arc::clone(daemon), Arc::clone(task));
    poll_fn(
        |cx| match reader.task.transcript.poll_end(cx, reader.number) {
            Some(terminal) => Poll::Ready(terminal),
            None => Poll::Pending,
        },
    )
    .await
}

async fn finished(daemon: &Arc<Daemon>, task: Arc<Task>) -> Response {
    match ended(daemon, &task).await {
        Terminal::End(_) => json_response(StatusCode::OK, &daemon.task_view(&task)),
        Terminal::Error(error) => error_response((*error).clone(), None),
    }
}

fn key(caller: &Caller, id: &str) -> Result<Key, ErrorBody> {
    let id = parse_uuid(id).ok_or_else(|| {
        ErrorBody::new(Code::InvalidParams, "the id in the path is not a UUID")
            .with_hint("ids look like `7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11`")
    })?;
    Ok(Key {
        tenant: Arc::clone(&caller.principal.tenant),
        id,
    })
}

async fn find(daemon: &Arc<Daemon>, caller: &Caller, id: &str) -> Result<Arc<Task>, Failure> {
    let found = daemon.find(&key(caller, id)?).await?;
    found.ok_or_else(|| not_found(&format!("task `{id}`")).into())
}

/// `GET /v1/tasks/{id}`.
pub async fn show(State(daemon): State<Arc<Daemon>>, caller: Caller, Id(id): Id) -> Response {
    match find(&daemon, &caller, &id).await {
        Ok(task) => json_response(StatusCode::OK, &daemon.task_view(&task)),
        Err(failure) => failure.answer(&caller),
    }
}

/// `GET /v1/tasks/{id}/stream` (ORCH-2002).
pub async fn stream(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> Response {
    let followed = find(&daemon, &caller, &id).await.and_then(|task| {
        let from = last_event_id(&headers)?;
        let forecast = daemon.forecast(&task);
        streamed(&daemon, &task, forecast, from)
    });
    followed.unwrap_or_else(|failure| failure.answer(&caller))
}

/// `GET /v1/tasks/{id}/receipt`: signed.
pub async fn receipt(State(daemon): State<Arc<Daemon>>, caller: Caller, Id(id): Id) -> Response {
    let signed =
        find(&daemon, &caller, &id)
            .await
            .and_then(|task| match task.transcript.terminal() {
                Some(Terminal::End(end)) => {
                    daemon.sign(&unsigned(&end["receipt"])).ok_or_else(|| {
                        ErrorBody::new(Code::Internal, "the daemon has no receipt key").into()
                    })
                }
                Some(Terminal::Error(_)) => {
                    Err(not_found("receipt: the task has not finished well").into())
                }
                None => Err(ErrorBody::new(Code::Conflict, "the task has not ended yet")
                    .with_reason("not_ended")
                    .with_hint("follow its stream, then ask again")
                    .into()),
            });
    match signed {
        Ok(receipt) => json_response(StatusCode::OK, &receipt),
        Err(failure) => failure.answer(&caller),
    }
}

/// A receipt that was signed in its `end` is signed again with the key that is active now.
fn unsigned(receipt: &Value) -> Value {
    let mut receipt = receipt.clone();
    if let Some(fields) = receipt.as_object_mut() {
        fields.remove("signature");
        fields.remove("key_id");
    }
    receipt
}

/// `POST /v1/tasks/{id}/cancel` (ORCH-2003): after the 204 no reader gets another token.
pub async fn cancel(State(daemon): State<Arc<Daemon>>, caller: Caller, Id(id): Id) -> Response {
    let found = match caller.must_submit() {
        Ok(()) => find(&daemon, &caller, &id).await,
        Err(body) => Err(body.into()),
    };
    match found {
        Ok(task) => {
            daemon.cancel(&task).await;
            no_content()
        }
        Err(failure) => failure.answer(&caller),
    }
}

/// `GET /v1/sessions/{id}` (ORCH-2004).
pub async fn session(State(daemon): State<Arc<Daemon>>, caller: Caller, Id(id): Id) -> Response {
    let view = key(&caller, &id).and_then(|key| {
        daemon
            .session_view(&key.tenant, key.id)
            .ok_or_else(|| not_found(&format!("session `{id}`")))
    });
    match view {
        Ok(view) => json_response(StatusCode::OK, &view),
        Err(body) => Failure::from(body).answer(&caller),
    }
}

/// `DELETE /v1/sessions/{id}` (ORCH-2005).
pub async fn close_session(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    Id(id): Id,
) -> Response {
    let closed = caller
        .must_submit()
        .and_then(|()| key(&caller, &id))
        .and_then(|key| {
            let tenant = daemon.registry.read().known_tenant(&key.tenant);
            let known = tenant.is_some() && daemon.session_view(&key.tenant, key.id).is_some();
            tenant
                .filter(|_| known)
                .map(|t| SessionKey(t, u128::from_be_bytes(key.id)))
                .ok_or_else(|| not_found(&format!("session `{id}`")))
        });
    match closed {
        Ok(session) => {
            daemon.drive(Input::SessionClosed(session));
            no_content().into_response()
        }
        Err(body) => Failure::from(body).answer(&caller),
    }
}

/// The status and headers of a terminal error told outside a stream.
pub(super) fn with_headers(
    mut answer: Response,
    body: &ErrorBody,
    forecast: Option<Forecast>,
) -> Response {
    add_backpressure(&mut answer, body, forecast);
    answer
}
