//! What clients and the control plane see: a task, a session, the whole daemon. Read only.

use std::sync::Arc;

use orchqueue_core::{ClassNo, PoolState, SessionKey};
use orchqueue_wire::errors::Code;
use orchqueue_wire::vocabulary::Channel;
use serde_json::{Map, Value, json};

use crate::clock::wall_ms;
use crate::daemon::Daemon;
use crate::finish::attempts;
use crate::task::Task;
use crate::transcript::Terminal;

impl Daemon {
    /// `GET /v1/tasks/{id}`: absent fields are left out.
    #[must_use]
    pub fn task_view(&self, task: &Task) -> Value {
        let mut view = Map::new();
        view.insert("task_id".into(), json!(task.id()));
        view.insert("priority".into(), json!(&*task.class_name));
        view.insert("created_ms".into(), json!(wall_ms(task.received)));
        match task.transcript.terminal() {
            Some(terminal) => self.ended_view(task, &terminal, &mut view),
            None => self.open_view(task, &mut view),
        }
        view.retain(|_, value| !value.is_null());
        Value::Object(view)
    }

    fn open_view(&self, task: &Task, view: &mut Map<String, Value>) {
        let live = self.dispatch.scheduler.lock().task(task.no);
        let run = task.run.lock();
        let started = run.attempts.last().is_some_and(|a| a.ended.is_none());
        view.insert(
            "state".into(),
            json!(if started { "started" } else { "queued" }),
        );
        view.insert("pool_id".into(), json!(run.pool.as_ref().map(|p| &*p.name)));
        view.insert("attempts".into(), json!(attempts(&run.attempts)));
        if let (false, Some(live)) = (started, live) {
            view.insert("queue_position".into(), json!(live.forecast.position));
            view.insert("predicted_start_ms".into(), json!(live.forecast.start_ms));
        }
    }

    fn ended_view(&self, task: &Task, terminal: &Terminal, view: &mut Map<String, Value>) {
        {
            let run = task.run.lock();
            let stored = run.stored.as_ref();
            view.insert(
                "pool_id".into(),
                stored.map_or_else(
                    || json!(run.pool.as_ref().map(|p| &*p.name)),
                    |d| d["pool_id"].clone(),
                ),
            );
            view.insert(
                "attempts".into(),
                stored.map_or_else(|| json!(attempts(&run.attempts)), |d| d["attempts"].clone()),
            );
            view.insert(
                "ended_ms".into(),
                stored.map_or_else(|| json!(run.ended.map(wall_ms)), |d| d["ended_ms"].clone()),
            );
        }
        match terminal {
            Terminal::End(end) => {
                view.insert("state".into(), json!("finished"));
                view.insert("output".into(), output(task, end));
                view.insert("receipt".into(), end["receipt"].clone());
            }
            Terminal::Error(error) => {
                let state = if error.code == Code::Canceled {
                    "canceled"
                } else {
                    "failed"
                };
                view.insert("state".into(), json!(state));
                view.insert("error".into(), json!(**error));
            }
        }
    }

    /// `GET /v1/sessions/{id}` (ORCH-2004).
    #[must_use]
    pub fn session_view(&self, tenant: &Arc<str>, id: [u8; 16]) -> Option<Value> {
        let tenant = self.registry.read().known_tenant(tenant)?;
        let key = SessionKey(tenant, u128::from_be_bytes(id));
        let session = self
            .dispatch
            .scheduler
            .lock()
            .session(self.clock.now(), key)?;
        Some(json!({
            "session_id": orchqueue_wire::request::format_uuid(&id),
            "ttl_ms_remaining": session.ttl_ms_remaining,
            "turns": session.turns,
            "kv_bytes": 0,
            "kv_warmth": "cold",
        }))
    }

    /// The live state for the control plane.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        // Always the scheduler before the registry: the order in which actions are performed.
        let scheduler = self.dispatch.scheduler.lock();
        let registry = self.registry.read();
        let replicas: Vec<Value> = registry
            .replicas
            .values()
            .map(|r| {
                let live = scheduler.replica(r.no);
                json!({
                    "replica_id": &*r.name,
                    "pool_id": &*r.pool.name,
                    "ready": live.as_ref().is_some_and(|v| v.ready),
                    "slots": r.slots,
                    "in_flight": live.as_ref().map_or(0, |v| v.in_flight),
                    "reclaiming": live.as_ref().map_or(0, |v| v.reclaiming),
                    "reproducible": r.reproducible,
                    "engine_version": &*r.engine_version,
                    "model_digest": &*r.model_digest,
                    "identity": &*r.identity,
                    "identity_fields": r.identity_fields,
                })
            })
            .collect();
        let pools: Vec<Value> = registry
            .pools
            .values()
            .map(|p| {
                let queued: Map<String, Value> = self
                    .class_numbers()
                    .map(|(no, name)| (name.to_string(), json!(scheduler.queue_depth(p.no, no))))
                    .collect();
                json!({
                    "pool_id": &*p.name,
                    "engine": &*p.engine,
                    "models": p.models,
                    "ctx": p.ctx,
                    "state": state_name(p.state),
                    "queued": queued,
                    "determinism": p.determinism,
                    "workloads": p.workloads,
                })
            })
            .collect();
        json!({"pools": pools, "replicas": replicas, "tasks_in_memory": self.tasks.len(), "journal_backlog": self.journal.backlog(), "draining": self.draining()})
    }

    /// Every family of the metrics contract.
    #[must_use]
    pub fn metrics_view(&self) -> Value {
        let scheduler = self.dispatch.scheduler.lock();
        let registry = self.registry.read();
        let mut gauges = Vec::new();
        for pool in registry.pools.values() {
            for (no, name) in self.class_numbers() {
                let labels =
                    json!({"engine": &*pool.engine, "pool_id": &*pool.name, "priority": &*name});
                gauges.push(json!([
                    "queue_depth",
                    labels,
                    scheduler.queue_depth(pool.no, no)
                ]));
            }
            if let Some(model) = pool.models.first() {
                let labels = json!({"model_id": model, "state": model_state(pool.state)});
                gauges.push(json!(["model_state", labels, 1]));
            }
        }
        drop(scheduler);
        drop(registry);
        self.metrics.snapshot(gauges)
    }

    pub(crate) fn class_numbers(&self) -> impl Iterator<Item = (ClassNo, Arc<str>)> + '_ {
        self.classes.iter().enumerate().map(|(i, name)| {
            (
                ClassNo(u8::try_from(i).unwrap_or(u8::MAX)),
                Arc::clone(name),
            )
        })
    }
}

/// `output` of a finished task.
#[must_use]
pub fn output(task: &Task, end: &Value) -> Value {
    let mut joined = [String::new(), String::new(), String::new()];
    for (channel, text) in task.transcript.segments() {
        joined[usize::from(channel.number())].push_str(&text);
    }
    let [text, reasoning, tool_calls] = joined;
    let mut output =
        json!({"text": text, "finish_reason": end["finish_reason"], "usage": end["usage"]});
    if let Some(fields) = output.as_object_mut() {
        for (channel, value) in [
            (Channel::Reasoning, reasoning),
            (Channel::ToolCall, tool_calls),
        ] {
            if !value.is_empty() {
                let name = if channel == Channel::Reasoning {
                    "reasoning"
                } else {
                    "tool_calls"
                };
                fields.insert(name.into(), Value::String(value));
            }
        }
    }
    output
}

/// The name of a pool's state in answers.
#[must_use]
pub fn state_name(state: PoolState) -> &'static str {
    match state {
        PoolState::Starting => "starting",
        PoolState::Ready => "ready",
        PoolState::Draining => "draining",
        PoolState::Failed => "failed",
    }
}

/// The catalog state of a model, as far as its pool tells.
fn model_state(state: PoolState) -> &'static str {
    if state == PoolState::Ready {
        "Active"
    } else {
        "Draft"
    }
}
