//! One upstream exchange: send the rendered request, feed what comes to the reader, append it to the
//! transcript, report the end. Dropping the exchange closes its connection, which is how an engine learns
//! that nobody wants the rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use orchqueue_core::{AttemptEnd, AttemptNo, Input};
use orchqueue_wire::adapter::Route;
use orchqueue_wire::reader::{
    EngineEnd, EngineFault, FaultClass, StreamReader, StreamState, TokenBatch, classify_response,
};
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::registry::Replica;
use crate::task::Task;

/// How long an engine may take to end the connection after its end marker, before it is closed instead of kept.
const DRAIN: Duration = Duration::from_secs(2);
/// How long and how much of an error answer is read.
const ERROR_BODY: Duration = Duration::from_secs(5);
const ERROR_BYTES: usize = 64 << 10;

/// How an exchange ended.
enum Exchange {
    Ended(EngineEnd, Incoming),
    Failed(EngineFault, Option<u64>),
    Stopped,
}

/// Runs attempt number `attempt` of `task` on `replica` and tells the scheduler how it ended.
pub async fn run(
    daemon: Arc<Daemon>,
    task: Arc<Task>,
    attempt: AttemptNo,
    replica: Arc<Replica>,
    stop: CancellationToken,
) {
    let exchange = tokio::select! {
        biased;
        () = stop.cancelled() => Exchange::Stopped,
        exchange = exchange(&daemon, &task, attempt, &replica) => exchange,
    };
    let now = daemon.clock.now();
    let (end, outcome, rest) = match exchange {
        Exchange::Ended(end, rest) => {
            let usage = AttemptEnd::Finished {
                tokens_in: end.usage.tokens_in,
                tokens_out: end.usage.tokens_out,
            };
            task.run.lock().result = Some(end);
            (usage, "finished", Some(rest))
        }
        Exchange::Failed(fault, retry_after_ms) => {
            let (end, outcome) = failure(&task, &fault, retry_after_ms);
            daemon.note_fault(&task, &replica, &fault);
            task.run.lock().fault = Some(fault);
            (end, outcome, None)
        }
        Exchange::Stopped => (AttemptEnd::Stopped, "stopped", None),
    };
    if let Some(record) = task.run.lock().attempts.last_mut() {
        record.ended = Some(now);
        record.outcome = outcome;
    }
    let stopped = end == AttemptEnd::Stopped;
    daemon.drive(Input::AttemptEnded {
        task: task.no,
        attempt,
        end,
    });
    if let Some(mut rest) = rest {
        // Read to the end, so that the connection can carry the next attempt.
        let _ = tokio::time::timeout(DRAIN, async { while rest.frame().await.is_some() {} }).await;
    }
    if stopped {
        until_idle(&daemon, &task, &replica).await;
    }
}

/// Which end a fault is for the scheduler: only the engine and the transport speak against the replica.
fn failure(
    task: &Task,
    fault: &EngineFault,
    retry_after_ms: Option<u64>,
) -> (AttemptEnd, &'static str) {
    match fault.class {
        FaultClass::InvalidRequest
        | FaultClass::ContextOverflow
        | FaultClass::Unauthenticated
        | FaultClass::NotFound => (AttemptEnd::Refused, "refused"),
        FaultClass::Busy => (AttemptEnd::Busy { retry_after_ms }, "busy"),
        FaultClass::Engine | FaultClass::Transport => (
            AttemptEnd::Failed {
                resumable: task.transcript.k() == 0,
            },
            "failed",
        ),
    }
}

fn transport(message: impl Into<String>) -> Exchange {
    Exchange::Failed(
        EngineFault {
            class: FaultClass::Transport,
            message: message.into(),
        },
        None,
    )
}

async fn exchange(
    daemon: &Arc<Daemon>,
    task: &Arc<Task>,
    attempt: AttemptNo,
    replica: &Replica,
) -> Exchange {
    let Some(route) = replica.pool.adapter.route(task.request.workload) else {
        let message = format!(
            "the adapter of `{}` has no route for this workload",
            replica.pool.engine
        );
        return Exchange::Failed(
            EngineFault {
                class: FaultClass::InvalidRequest,
                message,
            },
            None,
        );
    };
    let mut body = Vec::with_capacity(1024);
    if let Err(e) = route.render(&task.effective, &mut body) {
        return Exchange::Failed(
            EngineFault {
                class: FaultClass::InvalidRequest,
                message: e.to_string(),
            },
            None,
        );
    }
    let request = match replica.upstream.request(
        &route.method,
        &route.path,
        &route.headers,
        Bytes::from(body),
    ) {
        Ok(request) => request,
        Err(e) => return transport(format!("the request can't be made: {e}")),
    };
    match replica.upstream.send(request).await {
        Err(e) => transport(format!(
            "replica `{}` does not answer: {}",
            replica.name,
            root_cause(&e)
        )),
        Ok(answer) if answer.status() == StatusCode::OK => {
            follow(daemon, task, attempt, route, answer).await
        }
        Ok(answer) => refused(route, answer).await,
    }
}

async fn follow(
    daemon: &Arc<Daemon>,
    task: &Arc<Task>,
    attempt: AttemptNo,
    route: &Route,
    answer: Response<Incoming>,
) -> Exchange {
    let mut body = answer.into_body();
    let mut reader = StreamReader::new(Arc::clone(&route.grammar));
    let mut batch = TokenBatch::default();
    let mut begun = false;
    loop {
        batch.clear();
        let state = match body.frame().await {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(bytes) => reader.push(bytes, &mut batch),
                None => StreamState::Open,
            },
            Some(Err(e)) => return transport(format!("the stream broke: {}", root_cause(&e))),
            None => reader.finish(&mut batch),
        };
        if !batch.cuts.is_empty() || reader.tokens_out() > 0 {
            let now = daemon.clock.now();
            task.progressed(now, reader.tokens_out());
            if !task.transcript.append(&batch) && !batch.cuts.is_empty() {
                return Exchange::Stopped;
            }
            if !begun {
                begun = true;
                if let Some(record) = task.run.lock().attempts.last_mut() {
                    record.first_token = Some(now);
                }
                daemon.drive(Input::Progress {
                    task: task.no,
                    attempt,
                    at: now,
                    tokens_out: reader.tokens_out(),
                });
            }
        }
        match state {
            StreamState::Open => {}
            StreamState::Ended(end) => return Exchange::Ended(end, body),
            StreamState::Failed(fault) => return Exchange::Failed(fault, None),
        }
    }
}

async fn refused(route: &Route, answer: Response<Incoming>) -> Exchange {
    let status = answer.status().as_u16();
    let retry_after_ms = answer
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok())
        .map(|seconds| seconds.saturating_mul(1000).min(60_000));
    let body = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES).collect();
    let bytes = match tokio::time::timeout(ERROR_BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    Exchange::Failed(
        classify_response(&route.grammar, status, &bytes),
        retry_after_ms,
    )
}

/// Asks by the adapter's rule until the engine has let go of the slot; the scheduler bounds the wait itself.
async fn until_idle(daemon: &Arc<Daemon>, task: &Task, replica: &Replica) {
    let Some(rule) = &replica.pool.adapter.idle else {
        daemon.drive(Input::SlotIdle {
            replica: replica.no,
            task: task.no,
        });
        return;
    };
    let mut wait = rule.first_after_ms;
    for _ in 0..60 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            () = daemon.stopped.cancelled() => return,
        }
        wait = rule.every_ms.max(10);
        if !daemon.registry.read().replicas.contains_key(&replica.no) {
            return;
        }
        let Ok(request) = replica
            .upstream
            .request("GET", &rule.path, &[], Bytes::new())
        else {
            return;
        };
        let answer =
            tokio::time::timeout(Duration::from_secs(2), replica.upstream.send(request)).await;
        if let Ok(Ok(answer)) = answer {
            let idle = answer.status().as_u16() == rule.ok_status;
            let _ = tokio::time::timeout(DRAIN, answer.into_body().collect()).await;
            if idle {
                daemon.drive(Input::SlotIdle {
                    replica: replica.no,
                    task: task.no,
                });
                return;
            }
        }
    }
}

/// The innermost cause: the outer layers of an HTTP client's error say little.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
