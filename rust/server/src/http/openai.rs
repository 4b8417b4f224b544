//! The OpenAI door: a thin view on tasks, with OpenAI's shapes and error envelope.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use orchqueue_core::Forecast;
use orchqueue_wire::errors::ErrorBody;
use orchqueue_wire::openai::{
    Answer, ChatView, ChunkWriter, apply_header, error_body, error_chunk, parse_chat,
    parse_completion,
};
use orchqueue_wire::request::{ParamError, TaskRequest};
use orchqueue_wire::vocabulary::{Channel, Usage};
use serde_json::{Value, json};

use super::caller::Caller;
use super::respond::{EVENT_STREAM, bytes_response, json_response, status_of};
use super::stream::{Reader, StreamBody};
use super::tasks::{Failure, ended, read_body, with_headers};
use crate::admission::{Submission, Submitted};
use crate::clock::wall_ms;
use crate::daemon::Daemon;
use crate::finish::finish_reason;
use crate::task::{Door, Task};
use crate::transcript::Terminal;
use crate::views::output;

type Parse = fn(&[u8]) -> Result<(TaskRequest, ChatView), ParamError>;

/// `POST /v1/chat/completions`.
pub async fn chat(State(daemon): State<Arc<Daemon>>, caller: Caller, request: Request) -> Response {
    answer(&daemon, &caller, request, parse_chat).await
}

/// `POST /v1/completions`.
pub async fn completion(
    State(daemon): State<Arc<Daemon>>,
    caller: Caller,
    request: Request,
) -> Response {
    answer(&daemon, &caller, request, parse_completion).await
}

async fn answer(daemon: &Arc<Daemon>, caller: &Caller, request: Request, parse: Parse) -> Response {
    match answered(daemon, caller, request, parse).await {
        Ok(answer) => answer,
        Err(failure) => {
            let (mut body, forecast) = failure.into_parts();
            body.correlation_id
                .get_or_insert_with(|| caller.correlation.as_str().to_owned());
            if body.message.contains("`model_ref`") {
                // This door calls it by OpenAI's name.
                body.message = body.message.replace("`model_ref`", "`model`");
                body.param = Some("model".to_owned());
            }
            refusal(&body, forecast)
        }
    }
}

/// Whether a path speaks OpenAI's protocol, its errors too.
#[must_use]
pub fn is_door(path: &str) -> bool {
    matches!(
        path,
        "/v1/chat/completions" | "/v1/completions" | "/v1/models"
    )
}

pub(super) fn refusal(body: &ErrorBody, forecast: Option<Forecast>) -> Response {
    with_headers(
        bytes_response(status_of(body), error_body(body)),
        body,
        forecast,
    )
}

async fn answered(
    daemon: &Arc<Daemon>,
    caller: &Caller,
    request: Request,
    parse: Parse,
) -> Result<Response, Failure> {
    caller.must_submit()?;
    let received = daemon.clock.now();
    let (parts, body) = request.into_parts();
    let body = read_body(daemon, &parts.headers, body).await?;
    let (mut request, view) = parse(&body).map_err(ErrorBody::from)?;
    orchqueue_headers(&mut request, &parts.headers)?;
    let submission = Submission {
        tenant: Arc::clone(&caller.principal.tenant),
        request,
        body,
        door: Door::OpenAi,
        correlation_id: caller.correlation.shared(),
        received,
        recovered: None,
    };
    let (Submitted::New(task, _) | Submitted::Existing(task)) = daemon.submit(submission).await?;
    let writer = ChunkWriter::new(&view, &task.id(), wall_ms(task.received) / 1000);
    if view.stream {
        let reader = Reader::new(Arc::clone(daemon), task);
        let body = StreamBody::openai(reader, ChatStream { writer });
        let mut answer = Response::new(Body::new(body));
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, EVENT_STREAM);
        answer
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(answer);
    }
    Ok(match ended(daemon, &task).await {
        Terminal::End(end) => whole(&task, &end, &writer),
        Terminal::Error(error) => refusal(&error, None),
    })
}

fn orchqueue_headers(request: &mut TaskRequest, headers: &HeaderMap) -> Result<(), ErrorBody> {
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-orchqueue-"))
    {
        let value = value.to_str().unwrap_or("?");
        apply_header(request, name.as_str(), value).map_err(ErrorBody::from)?;
    }
    Ok(())
}

fn whole(task: &Task, end: &Value, writer: &ChunkWriter) -> Response {
    let output = output(task, end);
    let text = |name: &str| output[name].as_str().unwrap_or("").to_owned();
    let mut body = Vec::with_capacity(512);
    writer.whole(
        &mut body,
        &Answer {
            text: &text("text"),
            reasoning: &text("reasoning"),
            tool_calls: &text("tool_calls"),
            finish_reason: finish_reason(end),
            usage: recorded_usage(end),
        },
    );
    bytes_response(StatusCode::OK, body)
}

fn recorded_usage(end: &Value) -> Usage {
    let count = |name: &str| {
        end["usage"][name]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
    };
    Usage {
        tokens_in: count("tokens_in").unwrap_or(0),
        tokens_out: count("tokens_out").unwrap_or(0),
        tokens_cached: count("tokens_cached"),
    }
}

/// `GET /v1/models`.
pub async fn models(State(daemon): State<Arc<Daemon>>, _caller: Caller) -> Response {
    let registry = daemon.registry.read();
    let mut data: Vec<Value> = Vec::new();
    for pool in registry.pools.values() {
        let Some(id) = pool.models.first() else {
            continue;
        };
        if data.iter().all(|m| m["id"] != id.as_str()) {
            data.push(json!({"id": id, "object": "model", "created": 0, "owned_by": "orchqueue"}));
        }
    }
    json_response(StatusCode::OK, &json!({"object": "list", "data": data}))
}

/// The stream of one completion in OpenAI's chunks.
pub struct ChatStream {
    writer: ChunkWriter,
}

impl ChatStream {
    pub fn open(&self, out: &mut Vec<u8>) {
        self.writer.open(out);
    }

    pub fn token(&self, out: &mut Vec<u8>, text: &str, channel: Channel) {
        self.writer.token(out, text, channel);
    }

    pub fn end(&self, out: &mut Vec<u8>, end: &Value) {
        self.writer
            .close(out, finish_reason(end), &recorded_usage(end));
    }

    pub fn error(&self, out: &mut Vec<u8>, error: &ErrorBody) {
        error_chunk(out, error);
    }
}
