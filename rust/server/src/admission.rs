//! From a parsed request to an admitted task: who may serve it, is its id taken, does the scheduler take it.

use std::sync::Arc;

use bytes::Bytes;
use orchqueue_core::{
    Forecast, FullPolicy, Input, PoolNo, PoolState, Refusal, SessionKey, TaskSpec, Time,
};
use orchqueue_wire::errors::{Code, ErrorBody};
use orchqueue_wire::request::{Level, TaskRequest};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::config::policy_label;
use crate::daemon::Daemon;
use crate::dispatch::Answer;
use crate::journal::{BACKLOG_LIMIT, JournalError, Key};
use crate::registry::Pool;
use crate::task::{Admission, Door, NewTask, Task};

/// One request to do work.
pub struct Submission {
    pub tenant: Arc<str>,
    pub request: TaskRequest,
    /// The body as it came: valid JSON, kept for recovery.
    pub body: Bytes,
    pub door: Door,
    pub correlation_id: Arc<str>,
    pub received: Time,
    /// The id under which an earlier life of this daemon accepted it.
    pub recovered: Option<[u8; 16]>,
}

pub enum Submitted {
    New(Arc<Task>, Forecast),
    /// The same id with the same body: the same task, never a second decode.
    Existing(Arc<Task>),
}

/// A refusal with what the 429 headers need.
pub struct Refused {
    pub body: Box<ErrorBody>,
    pub forecast: Option<Forecast>,
}

impl From<ErrorBody> for Refused {
    fn from(body: ErrorBody) -> Self {
        Self {
            body: Box::new(body),
            forecast: None,
        }
    }
}

/// Where a task may run and at which level.
struct Eligible {
    pools: Vec<PoolNo>,
    level: Level,
    explicit: bool,
}

impl Daemon {
    /// Admits one task; when it returns `New` for a `Queued` door, the admission is durable.
    ///
    /// # Errors
    /// [`Refused`] with the envelope that the client gets; nothing was changed then.
    pub async fn submit(self: &Arc<Self>, submission: Submission) -> Result<Submitted, Refused> {
        let engine = submission.request.engine.clone();
        let submitted = self.decide(submission).await;
        if let Err(refused) = &submitted {
            let registry = self.registry.read();
            // Only an engine that we have becomes a label: clients must not make series.
            let known = registry
                .pools
                .values()
                .find(|p| Some(&*p.engine) == engine.as_deref());
            self.count_refusal(known.map_or("any", |p| &*p.engine), &refused.body);
        }
        submitted
    }

    async fn decide(self: &Arc<Self>, submission: Submission) -> Result<Submitted, Refused> {
        let recovered = submission.recovered.is_some();
        if !recovered && self.journal.backlog() > BACKLOG_LIMIT {
            return Err(journal_behind().into());
        }
        let durable = submission.door == Door::Queued && !recovered;
        let client_id = submission.recovered.or(submission.request.task_id);
        let key = Key {
            tenant: Arc::clone(&submission.tenant),
            id: client_id.unwrap_or_else(new_id),
        };
        if client_id.is_some() && !recovered {
            // Brings back a task that memory has let go of; `insert` below then finds it.
            self.find(&key).await?;
        }
        let (task, spec, ack) = self.prepare(key, submission)?;
        while let Err(other) = self.tasks.insert(&task) {
            if let Some(existing) = same_task(&other, &task.request)? {
                if durable {
                    existing.keep();
                    // Who is told 202 is told so for good, also for a task that came by another door.
                    self.journal
                        .barrier()
                        .await
                        .map_err(|e| self.not_durable(&e))?;
                }
                return Ok(Submitted::Existing(existing));
            }
            // It ended in a way that may be tried again: this is the new try.
            self.tasks.remove(&other);
        }
        match self.drive(Input::Submit(Box::new(spec))) {
            Some(Answer::Admitted(forecast)) => {
                if let Some(ack) = ack {
                    self.await_commit(&task, ack).await?;
                }
                Ok(Submitted::New(task, forecast))
            }
            Some(Answer::Refused {
                refusal,
                retry_after_ms,
                forecast,
            }) => {
                self.tasks.remove(&task);
                Err(Refused {
                    body: Box::new(refusal_body(refusal, retry_after_ms)),
                    forecast: Some(forecast),
                })
            }
            None => {
                self.tasks.remove(&task);
                Err(refusal_body(Refusal::ShuttingDown, None).into())
            }
        }
    }

    /// A task in memory, or brought back from the journal.
    ///
    /// # Errors
    /// An `INTERNAL` envelope when the journal can't be read.
    pub async fn find(self: &Arc<Self>, key: &Key) -> Result<Option<Arc<Task>>, ErrorBody> {
        if let Some(task) = self.tasks.get(key) {
            return Ok(Some(task));
        }
        let (daemon, key) = (Arc::clone(self), key.clone());
        // SQLite blocks: not on a thread that carries streams.
        let read =
            tokio::task::spawn_blocking(move || {
                let stored = daemon.journal.task(&key).map_err(|e| e.to_string())?;
                Ok(stored
                    .and_then(|(admitted, ended)| daemon.revive(&admitted.record, &ended?.record)))
            });
        read.await
            .unwrap_or_else(|e| Err(e.to_string()))
            .map_err(|cause: String| {
                self.log_error("the journal can't be read", &cause);
                ErrorBody::new(Code::Internal, "the journal can't be read")
            })
    }

    async fn await_commit(
        self: &Arc<Self>,
        task: &Arc<Task>,
        ack: oneshot::Receiver<AckResult>,
    ) -> Result<(), Refused> {
        let Err(failure) = ack.await.unwrap_or(Err(JournalError::Closed)) else {
            return Ok(());
        };
        // Not durable means not accepted: take it back, without a trace under its id.
        task.run.lock().unaccepted = true;
        self.cancel(task).await;
        self.tasks.remove(task);
        Err(self.not_durable(&failure))
    }

    fn not_durable(&self, failure: &JournalError) -> Refused {
        self.log_error("the journal can't be written", failure);
        ErrorBody::new(
            Code::Internal,
            "the task could not be made durable, so it was not accepted",
        )
        .with_reason("journal_unwritable")
        .with_hint("see the disk of the daemon; then send it again")
        .into()
    }

    #[allow(clippy::type_complexity)]
    fn prepare(
        &self,
        key: Key,
        submission: Submission,
    ) -> Result<(Arc<Task>, TaskSpec, Option<oneshot::Receiver<AckResult>>), Refused> {
        let Submission {
            request,
            body,
            door,
            correlation_id,
            received,
            recovered,
            ..
        } = submission;
        let (class, class_name) = self.class(request.priority.as_deref())?;
        let eligible = self.eligible(&request, door)?;
        let known = self.registry.read().known_tenant(&key.tenant);
        let tenant = known.unwrap_or_else(|| self.registry.write().tenant_no(&key.tenant));
        let deadline = request.deadline_ms.map(|ms| received.plus_ms(ms));
        let session = request
            .session_id
            .map(|id| SessionKey(tenant, u128::from_be_bytes(id)));
        let task = Arc::new(Task::new(NewTask {
            no: self.tasks.next_no(),
            key,
            tenant,
            request,
            class,
            class_name,
            level: eligible.level,
            door,
            correlation_id,
            received,
        }));
        let strict = eligible.explicit && eligible.level == Level::Strict;
        let spec = TaskSpec {
            task: task.no,
            tenant,
            class,
            session,
            eligible: eligible.pools,
            strict,
            strict_explicit: strict,
            tokens_in_estimate: u32::try_from(task.request.input_bytes() / 4).unwrap_or(u32::MAX),
            tokens_out_max: task.request.max_tokens,
            tokens_out_expected: task.request.expected_tokens,
            deadline,
            resumable: eligible.level == Level::Strict,
            recovered: recovered.is_some(),
        };
        let mut ack = None;
        if recovered.is_none() {
            let (tx, rx) = oneshot::channel();
            let durable = door == Door::Queued;
            task.run.lock().admission = Some(Admission {
                data: admission_record(&task, &body),
                ack: durable.then_some(tx),
            });
            ack = durable.then_some(rx);
        }
        Ok((task, spec, ack))
    }

    fn class(&self, name: Option<&str>) -> Result<(orchqueue_core::ClassNo, Arc<str>), ErrorBody> {
        let name = name.unwrap_or("interactive");
        let found = self.classes.iter().position(|c| &**c == name);
        // Without a class of that name, a task that does not say takes the first one.
        let place = found
            .or_else(|| (name == "interactive").then_some(0))
            .ok_or_else(|| {
                let known: Vec<String> = self.classes.iter().map(|c| format!("`{c}`")).collect();
                ErrorBody::new(
                    Code::InvalidParams,
                    format!("`priority`: no class `{name}`"),
                )
                .with_hint(format!("the classes are {}", known.join(", ")))
            })?;
        Ok((
            orchqueue_core::ClassNo(u8::try_from(place).unwrap_or(0)),
            Arc::clone(&self.classes[place]),
        ))
    }

    fn eligible(&self, request: &TaskRequest, door: Door) -> Result<Eligible, ErrorBody> {
        let registry = self.registry.read();
        let all: Vec<&Arc<Pool>> = registry.pools.values().collect();
        let pools = by_model(&all, request.model_ref.as_deref())?;
        let pools = by_engine(&pools, request.engine.as_deref())?;
        let pools = by_workload(&pools, request)?;
        let pools = by_context(&pools, request)?;
        let inherited = if door == Door::OpenAi {
            None
        } else {
            pools.first().map(|p| p.determinism)
        };
        let level = request
            .determinism
            .or(inherited)
            .unwrap_or(Level::BestEffort);
        let explicit = request.determinism.is_some();
        if explicit && level == Level::Strict {
            let possible = pools.iter().any(|p| {
                p.state == PoolState::Starting || registry.replicas_of(p.no).any(|r| r.reproducible)
            });
            if !possible {
                return Err(refusal_body(Refusal::NoReproducibleReplica, None));
            }
        }
        Ok(Eligible {
            pools: pools.iter().map(|p| p.no).collect(),
            level,
            explicit,
        })
    }

    /// Counts a task that was turned away, or that gave way after its admission.
    pub(crate) fn count_refusal(&self, engine: &str, body: &ErrorBody) {
        self.metrics
            .tasks_rejected
            .with(&[body.code.as_str(), engine])
            .add(1);
        if let Some(policy) = body.policy_label.as_deref() {
            self.metrics.backpressure.with(&[engine, policy]).add(1);
        }
    }
}

type AckResult = Result<(), JournalError>;

fn journal_behind() -> ErrorBody {
    let mut body = ErrorBody::new(
        Code::AdmissionReject,
        "the journal is behind: the disk is slower than the clients",
    )
    .with_reason("journal_behind")
    .with_hint("wait for `retry_after_ms`, then send it again");
    body.retry_after_ms = Some(1000);
    body.policy_label = Some(policy_label(FullPolicy::Reject).into());
    body
}

fn new_id() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}

fn conflict() -> ErrorBody {
    ErrorBody::new(
        Code::Conflict,
        "`task_id`: taken by a task with another body",
    )
    .with_hint("use a new `task_id`, or send the very same body to get the same task")
}

/// The task itself when the bodies are equal; nothing when it may be admitted again.
fn same_task(task: &Arc<Task>, request: &TaskRequest) -> Result<Option<Arc<Task>>, ErrorBody> {
    if task.request.body_digest() != request.body_digest() {
        return Err(conflict());
    }
    let again = matches!(task.transcript.terminal(), Some(crate::transcript::Terminal::Error(e)) if e.retriable);
    Ok((!again).then(|| Arc::clone(task)))
}

fn admission_record(task: &Task, body: &Bytes) -> String {
    let raw = std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let door = match task.door {
        Door::Queued => "queued",
        Door::OneTrip => "one_trip",
        Door::OpenAi if task.request.workload == orchqueue_wire::vocabulary::Workload::Chat => {
            "openai_chat"
        }
        Door::OpenAi => "openai_completion",
    };
    let request = &task.request;
    // What came in headers of the OpenAI door is not in its body.
    let headers = (task.door == Door::OpenAi).then(|| {
        serde_json::json!({
            "x-orchqueue-priority": request.priority,
            "x-orchqueue-determinism": request.determinism.map(Level::as_str),
            "x-orchqueue-deadline-ms": request.deadline_ms.map(|ms| ms.to_string()),
        })
    });
    let head = serde_json::json!({
        "door": door,
        "headers": headers,
        "correlation_id": &*task.correlation_id,
        "priority": &*task.class_name,
        "session_id": task.request.session_id.map(|id| orchqueue_wire::request::format_uuid(&id)),
    })
    .to_string();
    let body = raw.map_or("null", RawValue::get);
    format!("{},\"body\":{body}}}", head.trim_end_matches('}'))
}

/// The envelope of a refusal (ORCH-2006, ORCH-2007).
#[must_use]
pub fn refusal_body(refusal: Refusal, retry_after_ms: Option<u64>) -> ErrorBody {
    let mut body = match refusal {
        Refusal::QueueFull(policy) => full(Code::AdmissionReject, policy, "the queue of this class is full"),
        Refusal::Evicted(FullPolicy::DropLru) => {
            full(Code::QueueFullDropLru, FullPolicy::DropLru, "the queue was full and this task had waited longest")
        }
        Refusal::Evicted(policy @ FullPolicy::ShedLowPriority) => {
            full(Code::AdmissionReject, policy, "gave way to a task of a higher class")
        }
        Refusal::Evicted(policy) => {
            full(Code::AdmissionReject, policy, "the queue was full and this tenant had more than its share of it")
        }
        Refusal::PoolUnready => ErrorBody::new(Code::PoolUnready, "the pool is draining or has failed")
            .with_hint("see `orchqueue pools`; send it again once the pool is ready"),
        Refusal::PoolUnavailable => ErrorBody::new(Code::PoolUnavailable, "no pool can serve this task now"),
        Refusal::NoReproducibleReplica => {
            ErrorBody::new(Code::PoolUnavailable, "`determinism: strict` was asked for and no replica keeps it")
                .with_reason(orchqueue_wire::errors::reason::NO_REPRODUCIBLE_REPLICA)
                .with_retriable(false)
                .with_hint("ask for `best_effort`, or give the pool a reproducible replica (see `orchqueue replicas`)")
        }
        Refusal::DeadlineUnmet => ErrorBody::new(Code::DeadlineUnmet, "`deadline_ms` can't be met any more")
            .with_hint("allow more time, or a higher `priority`"),
        Refusal::SessionTurnsExhausted => {
            ErrorBody::new(Code::InvalidParams, "`session_id`: the session has used all its turns")
                .with_reason("session_turns_exhausted")
                .with_hint("begin a new session")
        }
        Refusal::ShuttingDown => ErrorBody::new(Code::PoolUnready, "the daemon is shutting down")
            .with_reason("shutting_down")
            .with_hint("send it again once the daemon is back"),
        Refusal::DuplicateTask => ErrorBody::new(Code::Internal, "the task number was used twice"),
    };
    if body.retriable {
        body.retry_after_ms = Some(retry_after_ms.unwrap_or(1000));
    }
    body
}

fn full(code: Code, policy: FullPolicy, message: &str) -> ErrorBody {
    let mut body =
        ErrorBody::new(code, message).with_hint("wait for `retry_after_ms`, then send it again");
    body.policy_label = Some(policy_label(policy).into());
    body
}

fn names<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<String> = items.map(|m| format!("`{m}`")).collect();
    known.sort();
    known.dedup();
    known.join(", ")
}

fn by_model<'a>(
    pools: &[&'a Arc<Pool>],
    model: Option<&str>,
) -> Result<Vec<&'a Arc<Pool>>, ErrorBody> {
    let Some(model) = model else {
        return Ok(pools.to_vec());
    };
    let found: Vec<_> = pools
        .iter()
        .copied()
        // A pool that is still starting may not know its model's names yet.
        .filter(|p| {
            p.serves_model(model) || (p.models.is_empty() && p.state == PoolState::Starting)
        })
        .collect();
    if found.is_empty() {
        let known = names(
            pools
                .iter()
                .flat_map(|p| p.models.first())
                .map(String::as_str),
        );
        return Err(ErrorBody::new(
            Code::InvalidParams,
            format!("`model_ref`: no pool serves `{model}`"),
        )
        .with_reason(orchqueue_wire::errors::reason::UNKNOWN_MODEL)
        .with_hint(format!("the models are {known}")));
    }
    Ok(found)
}

fn by_engine<'a>(
    pools: &[&'a Arc<Pool>],
    engine: Option<&str>,
) -> Result<Vec<&'a Arc<Pool>>, ErrorBody> {
    let Some(engine) = engine else {
        return Ok(pools.to_vec());
    };
    let found: Vec<_> = pools
        .iter()
        .copied()
        .filter(|p| &*p.engine == engine)
        .collect();
    if found.is_empty() {
        let known = names(pools.iter().map(|p| &*p.engine));
        return Err(ErrorBody::new(
            Code::PoolUnavailable,
            format!("`engine`: no pool of `{engine}` serves this"),
        )
        .with_reason("no_such_engine")
        .with_retriable(false)
        .with_hint(format!("the engines are {known}")));
    }
    Ok(found)
}

fn by_workload<'a>(
    pools: &[&'a Arc<Pool>],
    request: &TaskRequest,
) -> Result<Vec<&'a Arc<Pool>>, ErrorBody> {
    let found: Vec<_> = pools
        .iter()
        .copied()
        .filter(|p| p.workloads.contains(&request.workload))
        .collect();
    if found.is_empty() && !pools.is_empty() {
        let known = names(
            pools
                .iter()
                .flat_map(|p| p.workloads.iter().map(|w| w.as_str())),
        );
        let message = format!("`workload`: no pool serves `{}`", request.workload.as_str());
        return Err(ErrorBody::new(Code::InvalidParams, message)
            .with_reason("unknown_workload")
            .with_hint(format!("the workloads are {known}")));
    }
    Ok(found)
}

/// Refuses only what is certain not to fit (ORCH-3014, ORCH-3015): no tokenizer runs here.
fn by_context<'a>(
    pools: &[&'a Arc<Pool>],
    request: &TaskRequest,
) -> Result<Vec<&'a Arc<Pool>>, ErrorBody> {
    let fits = |pool: &Pool| {
        let prompt = pool.longest_token_bytes.map_or(0, |longest| {
            request.input_bytes() / (longest.max(1) as usize)
        });
        request.ctx.is_none_or(|ctx| ctx <= pool.ctx)
            && prompt as u64 + u64::from(request.max_tokens) <= u64::from(pool.ctx)
    };
    let found: Vec<_> = pools.iter().copied().filter(|p| fits(p)).collect();
    if found.is_empty() && !pools.is_empty() {
        let most = pools.iter().map(|p| p.ctx).max().unwrap_or(0);
        let message = match request.ctx {
            Some(ctx) if ctx > most => format!("`ctx`: {ctx} is more than the model's {most}"),
            _ => format!(
                "prompt and `max_tokens`: {} do not fit into a context of {most} tokens",
                request.max_tokens
            ),
        };
        return Err(ErrorBody::new(Code::InvalidParams, message)
            .with_reason(orchqueue_wire::errors::reason::CONTEXT_OVERFLOW)
            .with_hint(format!(
                "the context of prompt and output together is {most} tokens"
            )));
    }
    Ok(found)
}
