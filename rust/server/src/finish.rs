//! The end of a task: terminal event, receipt, record, counters, log line. And the way back from the record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orchqueue_core::{EndReason, Refusal, TimeoutKind};
use orchqueue_wire::errors::{Code, ErrorBody};
use orchqueue_wire::reader::{EngineEnd, EngineFault, FaultClass};
use orchqueue_wire::request::{ReceiptForm, format_uuid};
use orchqueue_wire::vocabulary::FinishReason;
use serde_json::{Value, json};

use crate::admission::refusal_body;
use crate::clock::wall_ms;
use crate::daemon::Daemon;
use crate::journal::{Kind, Record};
use crate::receipt::{Proof, unsigned};
use crate::task::{AttemptRecord, Run, Task};
use crate::transcript::Terminal;

impl Daemon {
    /// Writes the one terminal event of a task and everything that follows from it.
    pub(crate) fn finish(self: &Arc<Self>, task: &Arc<Task>, reason: EndReason) {
        if task.transcript.terminal().is_some() {
            // Handed back at the shutdown: the journal keeps it open, and the next life runs it.
            return;
        }
        let now = self.clock.now();
        let (result, fault) = {
            let mut run = task.run.lock();
            run.ended = Some(now);
            run.stop = None;
            (run.result.take(), run.fault.clone())
        };
        let terminal = match (reason, &result) {
            (EndReason::Finished, Some(end)) => {
                let (length, digest) = task.transcript.proof();
                Terminal::End(Arc::new(self.end_data(task, end, length, &digest)))
            }
            _ => Terminal::Error(Arc::new(self.error_data(task, reason, fault.as_ref()))),
        };
        if task.run.lock().unaccepted {
            // Its client was told that it was not taken: it leaves no trace.
            self.tasks.remove(task);
            task.transcript.end(terminal);
            return;
        }
        // Recorded before anybody can see it: what a client does next must not overtake it in the journal.
        self.record_end(task, &terminal);
        self.count_end(task, reason, result.as_ref());
        self.log_end(task, reason, result.as_ref());
        task.transcript.end(terminal);
        self.linger(task);
    }

    fn end_data(&self, task: &Task, end: &EngineEnd, length: u64, digest: &[u8; 32]) -> Value {
        let run = task.run.lock();
        let ended_ms = wall_ms(run.ended.unwrap_or_default());
        let receipt = unsigned(
            task,
            &run,
            &Proof {
                end,
                length,
                digest: *digest,
                ended_ms,
            },
        );
        let receipt = match task.request.receipt {
            ReceiptForm::Signed => self.sign(&receipt).unwrap_or(receipt),
            ReceiptForm::Unsigned => receipt,
        };
        json!({
            "tokens_out": end.usage.tokens_out,
            "decode_ms": decode_ms(&run),
            "finish_reason": end.finish_reason.as_str(),
            "usage": usage(end),
            "receipt": receipt,
        })
    }

    fn error_data(&self, task: &Task, reason: EndReason, fault: Option<&EngineFault>) -> ErrorBody {
        let diverged = task.run.lock().diverged;
        let mut body = match diverged.filter(|_| reason == EndReason::WorkerReset) {
            Some(k) => diverged_body(k),
            None => error_body(reason, fault, self.draining()),
        };
        body.engine = task.run.lock().pool.as_ref().map(|p| p.engine.to_string());
        body.correlation_id = Some(task.correlation_id.to_string());
        body
    }

    pub(crate) fn record_end(&self, task: &Task, terminal: &Terminal) {
        let doc = document(task, terminal);
        let data = doc.to_string();
        self.journal.append(Record {
            key: task.key.clone(),
            kind: Kind::Ended,
            at_ms: wall_ms(self.clock.now()),
            data,
        });
    }

    fn count_end(&self, task: &Task, reason: EndReason, result: Option<&EngineEnd>) {
        let run = task.run.lock();
        let (engine, pool) = run
            .pool
            .as_ref()
            .map_or(("any", "none"), |p| (&*p.engine, &*p.name));
        if reason == EndReason::Canceled {
            self.metrics
                .tasks_canceled
                .with(&[engine, pool, &task.class_name, "client"])
                .add(1);
        }
        if let EndReason::Refused(refusal) = reason {
            self.count_refusal(engine, &refusal_body(refusal, None));
        }
        for attempt in &run.attempts {
            self.count_tokens(task, attempt);
        }
        let Some(last) = run.attempts.last() else {
            return;
        };
        if let Some(end) = result {
            last.replica.tokens_in.add(u64::from(end.usage.tokens_in));
        }
        let labels = [
            engine,
            &*last.replica.engine_version,
            pool,
            &*task.class_name,
        ];
        if let (Some(first), Some(ended)) = (last.first_token, last.ended) {
            self.metrics
                .latency_first_token
                .with(&labels)
                .observe_us(first.0.saturating_sub(task.received.0));
            self.metrics
                .latency_decode
                .with(&labels)
                .observe_us(ended.0.saturating_sub(first.0));
        }
    }

    /// What a failover decodes again is charged to nobody and counted apart.
    fn count_tokens(&self, task: &Task, attempt: &AttemptRecord) {
        let decoded = match attempt.ended {
            Some(_) => attempt.tokens_out,
            None => task.tokens_out.load(Ordering::Relaxed),
        };
        attempt
            .replica
            .tokens_out
            .add(u64::from(decoded.saturating_sub(attempt.redecoded)));
        if attempt.redecoded > 0 {
            let replica = &attempt.replica;
            let labels = [
                &*replica.pool.engine,
                &*replica.engine_version,
                &*replica.pool.name,
                &*replica.name,
            ];
            self.metrics
                .tokens_redecoded
                .with(&labels)
                .add(u64::from(attempt.redecoded));
        }
    }

    fn log_end(&self, task: &Task, reason: EndReason, result: Option<&EngineEnd>) {
        if !self.config.log_tasks {
            return;
        }
        let terminal = task.transcript.terminal();
        let run = task.run.lock();
        let last = run.attempts.last();
        let started = last.map_or(self.clock.now(), |a| a.started);
        let mut line = json!({
            "task_id": task.id(),
            "session_id": task.request.session_id.map(|id| format_uuid(&id)),
            "tenant_id": &*task.key.tenant,
            "engine": run.pool.as_ref().map(|p| &*p.engine),
            "pool_id": run.pool.as_ref().map(|p| &*p.name),
            "replica_id": last.map(|a| &*a.replica.name),
            "model_id": run.pool.as_ref().and_then(|p| p.models.first()),
            "quant": last.and_then(|a| a.replica.identity_fields.get("quant")),
            "ctx": run.pool.as_ref().map(|p| p.ctx),
            "engine_version": last.map(|a| &*a.replica.engine_version),
            "sampler_profile_version": "v1",
            "seed": task.seed,
            "kv_warmth": "cold",
            "queue_time_ms": started.ms_since(task.received),
            "decode_time_ms": decode_ms(&run),
            "tokens_in": result.map(|e| e.usage.tokens_in),
            "tokens_out": task.tokens_out.load(Ordering::Relaxed),
            "outcome": outcome(reason),
            "correlation_id": &*task.correlation_id,
        });
        if let (Some(fields), Some(Terminal::Error(error))) = (line.as_object_mut(), terminal) {
            fields.insert(
                "error".into(),
                // An engine's message may quote the prompt.
                json!({
                    "code": error.code.as_str(),
                    "reason": error.reason,
                    "message": self.config.log_content.then_some(&error.message),
                }),
            );
        }
        drop(run);
        self.log.line(self.clock.now(), "info", "task ended", line);
    }
}

/// What the journal and the store keep of an ended task.
fn document(task: &Task, terminal: &Terminal) -> Value {
    let (state, end, error) = match terminal {
        Terminal::End(end) => ("finished", (**end).clone(), Value::Null),
        Terminal::Error(e) if e.code == Code::Canceled => ("canceled", Value::Null, json!(**e)),
        Terminal::Error(e) => ("failed", Value::Null, json!(**e)),
    };
    let segments: Vec<Value> = task
        .transcript
        .segments()
        .into_iter()
        .map(|(channel, text)| json!([channel.number(), text]))
        .collect();
    // Locked after the transcript, never around it.
    let run = task.run.lock();
    json!({
        "task_id": task.id(),
        "state": state,
        "priority": &*task.class_name,
        "pool_id": run.pool.as_ref().map(|p| &*p.name),
        "model": run.pool.as_ref().and_then(|p| p.models.first()),
        "created_ms": wall_ms(task.received),
        "ended_ms": run.ended.map(wall_ms),
        "attempts": attempts(&run.attempts),
        "segments": segments,
        "end": end,
        "error": error,
    })
}

/// The attempts, as clients and records see them.
#[must_use]
pub fn attempts(records: &[AttemptRecord]) -> Vec<Value> {
    records
        .iter()
        .map(|a| {
            let mut attempt = json!({
                "attempt": a.attempt.0,
                "replica_id": &*a.replica.name,
                "outcome": a.outcome,
                "started_ms": wall_ms(a.started),
            });
            if let Some(ended) = a.ended {
                attempt["ended_ms"] = json!(wall_ms(ended));
            }
            attempt
        })
        .collect()
}

/// `{tokens_in, tokens_out, tokens_cached?}`.
#[must_use]
pub fn usage(end: &EngineEnd) -> Value {
    serde_json::to_value(end.usage).unwrap_or(Value::Null)
}

/// From the first token to the end of the last attempt.
#[must_use]
pub fn decode_ms(run: &Run) -> u64 {
    let span = run
        .attempts
        .last()
        .and_then(|a| Some(a.ended?.ms_since(a.first_token?)));
    span.unwrap_or(0)
}

fn outcome(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Finished => "finished",
        EndReason::Canceled => "canceled",
        _ => "failed",
    }
}

/// The envelope of a task that ended without a result.
fn error_body(reason: EndReason, fault: Option<&EngineFault>, draining: bool) -> ErrorBody {
    let said = fault.map_or("the replica stopped answering", |f| f.message.as_str());
    match reason {
        EndReason::Finished => ErrorBody::new(Code::Internal, "the result of the task is missing"),
        EndReason::Canceled if draining => {
            ErrorBody::new(Code::Canceled, "canceled: the daemon is shutting down")
        }
        EndReason::Canceled => ErrorBody::new(Code::Canceled, "canceled"),
        EndReason::TimedOut(kind) => timeout_body(kind),
        EndReason::EngineRefused => engine_refused(fault, said),
        EndReason::WorkerReset => ErrorBody::new(
            Code::WorkerReset,
            format!("the replica failed under the task: {said}"),
        )
        .with_hint("send the task again with the same `task_id`"),
        EndReason::ReplicaExhausted => ErrorBody::new(
            Code::ReplicaExhausted,
            format!("no replica could serve the task: {said}"),
        )
        .with_hint("see `orchqueue replicas` for their last errors; then send it again"),
        EndReason::Refused(Refusal::DeadlineUnmet) => refusal_body(Refusal::DeadlineUnmet, None),
        EndReason::Refused(refusal) => refusal_body(refusal, None),
    }
}

fn diverged_body(k: u64) -> ErrorBody {
    ErrorBody::new(
        Code::DeterminismDiverged,
        format!("the replica that took over did not repeat what had been sent: byte {k} is another"),
    )
    .with_hint("the operator finds the difference in the `divergences` folder beside the store; send the task again under a new `task_id`")
}

fn timeout_body(kind: TimeoutKind) -> ErrorBody {
    let (what, limit) = match kind {
        TimeoutKind::FirstToken => ("no first token in time", "first_token"),
        TimeoutKind::Idle => ("the stream stood still", "idle"),
        TimeoutKind::Wall => ("the attempt took too long", "wall"),
    };
    ErrorBody::new(Code::DecodeTimeout, what)
        .with_reason(limit)
        .with_hint(format!("see `pools[].timeouts.{limit}_ms`"))
}

fn engine_refused(fault: Option<&EngineFault>, said: &str) -> ErrorBody {
    match fault.map(|f| f.class) {
        Some(FaultClass::ContextOverflow) => ErrorBody::new(
            Code::InvalidParams,
            format!("the prompt does not fit into the model's context: {said}"),
        )
        .with_reason(orchqueue_wire::errors::reason::CONTEXT_OVERFLOW)
        .with_hint("send a shorter prompt, or a smaller `max_tokens`"),
        Some(FaultClass::Unauthenticated) => {
            ErrorBody::new(Code::PoolUnavailable, "the replica refuses our key")
                .with_reason("replica_key_refused")
                .with_retriable(false)
                .with_hint("check `replicas[].api_key` of the pool")
        }
        Some(FaultClass::NotFound) => ErrorBody::new(
            Code::PoolUnavailable,
            format!("the replica does not know what was asked of it: {said}"),
        )
        .with_reason("engine_mismatch")
        .with_retriable(false)
        .with_hint("check `pools[].engine`: is it the engine that runs at this address?"),
        _ => ErrorBody::new(
            Code::InvalidParams,
            format!("the engine refused the task: {said}"),
        )
        .with_reason("engine_refused"),
    }
}

/// `stop`, `length` or `tool_calls` of a recorded end.
#[must_use]
pub fn finish_reason(end: &Value) -> FinishReason {
    match end["finish_reason"].as_str() {
        Some("length") => FinishReason::Length,
        Some("tool_calls") => FinishReason::ToolCalls,
        _ => FinishReason::Stop,
    }
}
