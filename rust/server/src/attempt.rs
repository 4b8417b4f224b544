//! One upstream exchange: send the rendered request, feed what comes to the reader, append it to the
//! transcript, report the end. Dropping the exchange closes its connection, which is how an engine learns
//! that nobody wants the rest.
//!
//! A strict task whose replica dies is decoded again by another one of the set: the transcript compares what
//! it has and takes what is new, so readers never notice (determinism.md, verified mid-stream failover).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use orchqueue_core::{AttemptEnd, AttemptNo, Input};
use orchqueue_wire::adapter::Route;
use orchqueue_wire::fault::{EngineFault, FaultClass, classify_response};
use orchqueue_wire::reader::{EngineEnd, StreamReader, StreamState, TokenBatch};
use orchqueue_wire::request::Level;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::registry::Replica;
use crate::task::Task;
use crate::transcript::{Appended, Place};

/// How long an engine may take to end the connection after its end marker, before it is closed instead of kept.
const DRAIN: Duration = Duration::from_secs(2);
/// How long and how much of an error answer is read.
const ERROR_BODY: Duration = Duration::from_secs(5);
const ERROR_BYTES: usize = 64 << 10;
/// Text that is appended at once, at most.
const BATCH_BYTES: usize = 16 << 10;

/// How an exchange ended.
enum Exchange {
    Ended(EngineEnd, Incoming),
    Failed(EngineFault, Option<u64>),
    /// Output byte `k` is not what an earlier attempt had sent.
    Diverged {
        k: u64,
    },
    Stopped,
}

impl Exchange {
    fn transport(message: impl Into<String>) -> Self {
        Self::Failed(
            EngineFault {
                class: FaultClass::Transport,
                message: message.into(),
            },
            None,
        )
    }

    fn refused(message: impl Into<String>) -> Self {
        Self::Failed(
            EngineFault {
                class: FaultClass::InvalidRequest,
                message: message.into(),
            },
            None,
        )
    }
}

/// One attempt of a task. Dropping it without a report (a panic, a runtime that ends) reports a failure, so
/// that its slot is never lost.
pub struct Attempt {
    pub daemon: Arc<Daemon>,
    pub task: Arc<Task>,
    pub no: AttemptNo,
    pub replica: Arc<Replica>,
    reported: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.reported {
            self.report(AttemptEnd::Failed { resumable: false });
        }
    }
}

impl Attempt {
    #[must_use]
    pub fn new(daemon: Arc<Daemon>, task: Arc<Task>, no: AttemptNo, replica: Arc<Replica>) -> Self {
        Self {
            daemon,
            task,
            no,
            replica,
            reported: false,
        }
    }

    fn report(&mut self, end: AttemptEnd) {
        self.reported = true;
        self.daemon.drive(Input::AttemptEnded {
            task: self.task.no,
            attempt: self.no,
            end,
            tokens_out: self.task.tokens_out.load(Ordering::Relaxed),
        });
    }

    /// Runs the exchange until it ends or `stop` says so, and tells the scheduler how it ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let exchange = tokio::select! {
            biased;
            () = stop.cancelled() => Exchange::Stopped,
            exchange = self.exchange() => exchange,
        };
        let (end, outcome, rest) = self.judge(exchange);
        let now = self.daemon.clock.now();
        self.task.run.lock().with_attempt(self.no, |record| {
            // What was stopped says so already, and from when.
            if record.ended.is_none() {
                record.ended = Some(now);
                record.outcome = outcome;
                record.tokens_out = self.task.tokens_out.load(Ordering::Relaxed);
            }
        });
        let stopped = end == AttemptEnd::Stopped;
        self.report(end);
        if let Some(mut rest) = rest {
            // Read to the end, so that the connection can carry the next attempt.
            let _ =
                tokio::time::timeout(DRAIN, async { while rest.frame().await.is_some() {} }).await;
        }
        if stopped {
            self.until_idle().await;
        }
    }

    /// What an end is for the scheduler and the records, and the rest of the answer if it is worth reading.
    fn judge(&self, exchange: Exchange) -> (AttemptEnd, &'static str, Option<Incoming>) {
        match exchange {
            Exchange::Ended(end, rest) => {
                let (tokens_in, tokens_out) = (end.usage.tokens_in, end.usage.tokens_out);
                self.task.run.lock().result = Some(end);
                (
                    AttemptEnd::Finished {
                        tokens_in,
                        tokens_out,
                    },
                    "finished",
                    Some(rest),
                )
            }
            Exchange::Failed(fault, retry_after_ms) => {
                let (end, outcome) = self.failure(&fault, retry_after_ms);
                self.daemon.note_fault(&self.task, &self.replica, &fault);
                self.task.run.lock().fault = Some(fault);
                (end, outcome, None)
            }
            Exchange::Diverged { k } => {
                self.task.run.lock().diverged = Some(k);
                self.daemon.note_divergence(&self.task, &self.replica, k);
                (AttemptEnd::Failed { resumable: false }, "diverged", None)
            }
            Exchange::Stopped => (AttemptEnd::Stopped, "stopped", None),
        }
    }

    /// Which end a fault is: only the engine and the transport speak against the replica. The task can go on
    /// elsewhere if nothing was sent yet, or if the set reproduces what was sent.
    fn failure(
        &self,
        fault: &EngineFault,
        retry_after_ms: Option<u64>,
    ) -> (AttemptEnd, &'static str) {
        let reproducible = self.task.level() == Level::Strict && self.replica.reproducible;
        let resumable = reproducible || self.task.transcript.k() == 0;
        match fault.class {
            FaultClass::InvalidRequest
            | FaultClass::ContextOverflow
            | FaultClass::Unauthenticated
            | FaultClass::NotFound => (AttemptEnd::Refused, "refused"),
            FaultClass::Busy if resumable => (AttemptEnd::Busy { retry_after_ms }, "busy"),
            FaultClass::Busy | FaultClass::Engine | FaultClass::Transport => {
                (AttemptEnd::Failed { resumable }, "failed")
            }
        }
    }

    async fn exchange(&self) -> Exchange {
        let replica = &self.replica;
        let Some(route) = replica.pool.adapter.route(self.task.request.workload) else {
            return Exchange::refused(format!(
                "the adapter of `{}` has no route for this workload",
                replica.pool.engine
            ));
        };
        let mut body = Vec::with_capacity(1024);
        if let Err(e) = route.render(&self.task.effective, &mut body) {
            return Exchange::refused(e.to_string());
        }
        let request = replica.upstream.request(
            &route.method,
            &route.path,
            &route.headers,
            Bytes::from(body),
        );
        let request = match request {
            Ok(request) => request,
            Err(e) => return Exchange::refused(format!("the request can't be made: {e}")),
        };
        match replica.upstream.send(request).await {
            Err(e) => Exchange::transport(format!(
                "replica `{}` does not answer: {}",
                replica.name,
                root_cause(&e)
            )),
            Ok(answer) if answer.status() == StatusCode::OK => self.follow(route, answer).await,
            Ok(answer) => refused(route, answer).await,
        }
    }

    async fn follow(&self, route: &Route, answer: Response<Incoming>) -> Exchange {
        let mut body = answer.into_body();
        let mut reader = StreamReader::new(Arc::clone(&route.grammar));
        let mut batch = TokenBatch::default();
        let mut place = Place::default();
        let mut begun = false;
        let mut tokens_then = 0;
        loop {
            batch.clear();
            let state = match body.frame().await {
                Some(Ok(frame)) => drain(&frame, &mut body, &mut reader, &mut batch).await,
                Some(Err(e)) => broken_off(reader.break_off(&mut batch), &e),
                None => reader.finish(&mut batch),
            };
            // Comments and pings are no progress (ORCH-3016).
            let advanced = reader.tokens_out() > tokens_then;
            if advanced || !batch.cuts.is_empty() || !batch.ids.is_empty() {
                tokens_then = reader.tokens_out();
                self.progressed(tokens_then.max(1), &mut begun);
            }
            match self.task.transcript.append(&mut place, &batch) {
                Appended::Taken => {}
                Appended::Ended => return Exchange::Stopped,
                Appended::Diverged { k } => return Exchange::Diverged { k },
            }
            if self.no.0 > 1 && self.task.transcript.repeats(&place) {
                self.task
                    .run
                    .lock()
                    .with_attempt(self.no, |record| record.redecoded = reader.tokens_out());
            }
            match state {
                StreamState::Open => {}
                StreamState::Ended(_) if self.task.transcript.repeats(&place) => {
                    // It ended before it had repeated everything that was sent.
                    return Exchange::Diverged {
                        k: self.task.transcript.k(),
                    };
                }
                StreamState::Ended(end) => return Exchange::Ended(end, body),
                StreamState::Failed(fault) => return Exchange::Failed(fault, None),
            }
        }
    }

    /// Notes progress for the watchdogs; the scheduler itself hears of the first token only.
    fn progressed(&self, tokens_out: u32, begun: &mut bool) {
        let now = self.daemon.clock.now();
        self.task.progressed(now, tokens_out);
        if !*begun {
            *begun = true;
            self.task
                .run
                .lock()
                .with_attempt(self.no, |record| record.first_token = Some(now));
            self.daemon.drive(Input::Progress {
                task: self.task.no,
                attempt: self.no,
                at: now,
                tokens_out,
            });
        }
    }

    /// Asks by the adapter's rule until the engine has let go of the slot; the scheduler bounds the wait itself.
    async fn until_idle(&self) {
        let (daemon, replica) = (&self.daemon, &self.replica);
        let idle = Input::SlotIdle {
            replica: replica.no,
            task: self.task.no,
        };
        let Some(rule) = &replica.pool.adapter.idle else {
            daemon.drive(idle);
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
                let is_idle = answer.status().as_u16() == rule.ok_status;
                let _ = tokio::time::timeout(DRAIN, answer.into_body().collect()).await;
                if is_idle {
                    daemon.drive(idle);
                    return;
                }
            }
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

/// Reads what came and whatever has come with it: an engine's burst is many small chunks, and each append costs
/// its readers a write.
async fn drain(
    first: &Frame<Bytes>,
    body: &mut Incoming,
    reader: &mut StreamReader,
    batch: &mut TokenBatch,
) -> StreamState {
    let push = |frame: &Frame<Bytes>, reader: &mut StreamReader, batch: &mut TokenBatch| {
        frame
            .data_ref()
            .map_or(StreamState::Open, |bytes| reader.push(bytes, batch))
    };
    let mut state = push(first, reader, batch);
    while matches!(state, StreamState::Open) && batch.text.len() < BATCH_BYTES {
        // The connection hands over one chunk at a time: let it bring the next if it has one.
        tokio::task::yield_now().await;
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => state = push(&frame, reader, batch),
            Some(Some(Err(e))) => state = broken_off(reader.break_off(batch), &e),
            Some(None) => state = reader.finish(batch),
            None => break,
        }
    }
    state
}

/// A connection that breaks after the engine said that it was done has broken nothing.
fn broken_off(state: StreamState, error: &hyper::Error) -> StreamState {
    match state {
        StreamState::Failed(mut fault) => {
            fault.message = format!("the stream broke: {}", root_cause(error));
            StreamState::Failed(fault)
        }
        told => told,
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
