//! From the journal back to tasks: what was accepted and had not ended runs again, what had ended answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orchqueue_core::Time;
use orchqueue_wire::errors::{Code, ErrorBody};
use orchqueue_wire::request::{Level, TaskRequest, parse_task};
use orchqueue_wire::vocabulary::Channel;
use serde_json::{Value, json};

use crate::admission::{Submission, Submitted};
use crate::daemon::Daemon;
use crate::http::stream::left_alone;
use crate::journal::{JournalError, Kind, Record, StoredRecord};
use crate::task::{Door, NewTask, Task};
use crate::transcript::{Place, Terminal};

impl Daemon {
    /// Whether the tasks of an earlier life are back in the queue.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    /// Admits again, once and in their order, the accepted tasks of an earlier life that had not ended. What can't
    /// be taken up for a reason that passes (the daemon is told to stop meanwhile) stays open for the next life.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), JournalError> {
        if self.recovered() {
            return Ok(());
        }
        let open = self.journal.open_tasks()?;
        if !open.is_empty() {
            let fields = json!({"open_tasks": open.len()});
            self.log.line(
                self.clock.now(),
                "info",
                "taking up what an earlier life had accepted",
                fields,
            );
        }
        for StoredRecord { record, .. } in open {
            if self.draining() {
                return Ok(());
            }
            self.take_up(record).await;
        }
        self.recovered.store(true, Ordering::Release);
        Ok(())
    }

    async fn take_up(self: &Arc<Self>, record: Record) {
        let admission: Value = serde_json::from_str(&record.data).unwrap_or(Value::Null);
        let Some((request, door)) = recorded_request(&admission) else {
            self.end_unreadable(record);
            return;
        };
        if door == Door::OpenAi {
            let error = ErrorBody::new(
                Code::WorkerReset,
                "the daemon was restarted while the task ran",
            );
            self.end_unrecoverable(&record, &admission, error);
            return;
        }
        let submission = Submission {
            tenant: Arc::clone(&record.key.tenant),
            request,
            body: bytes::Bytes::new(),
            door,
            correlation_id: admission["correlation_id"]
                .as_str()
                .unwrap_or_default()
                .into(),
            received: Time(record.at_ms.saturating_mul(1000)),
            recovered: Some(record.key.id),
        };
        match self.submit(submission).await {
            // Its client may come back for the stream; if not, it ends as any task that is left alone.
            Ok(Submitted::New(task, _)) => left_alone(self, &task),
            Ok(Submitted::Existing(_)) => {}
            Err(refused) if refused.body.retriable => {
                self.log_error(
                    "a task could not be taken up again yet",
                    &refused.body.message,
                );
            }
            Err(refused) => self.end_unrecoverable(&record, &admission, *refused.body),
        }
    }

    /// A record that this daemon does not understand would stay open for ever.
    fn end_unreadable(&self, record: Record) {
        let error = ErrorBody::new(Code::Internal, "the record of the task can't be read");
        let id = orchqueue_wire::request::format_uuid(&record.key.id);
        self.log_error(
            "a task could not be taken up again",
            &format!("the record of task {id} can't be read"),
        );
        let data = json!({"task_id": id, "state": "failed", "segments": [], "attempts": [], "end": null, "error": error});
        self.journal.append(Record {
            kind: Kind::Ended,
            data: data.to_string(),
            ..record
        });
    }

    /// A task that ended before this life of the daemon (or long ago), back in memory for a while.
    pub(crate) fn revive(self: &Arc<Self>, admitted: &Record, ended: &Record) -> Option<Arc<Task>> {
        let admission: Value = serde_json::from_str(&admitted.data).ok()?;
        let doc: Value = serde_json::from_str(&ended.data).ok()?;
        let task = self.revive_open(admitted, &admission)?;
        let mut batch = orchqueue_wire::reader::TokenBatch::default();
        for segment in doc["segments"].as_array()? {
            let channel = match segment[0].as_u64()? {
                0 => Channel::Text,
                1 => Channel::Reasoning,
                _ => Channel::ToolCall,
            };
            batch.text.push_str(segment[1].as_str()?);
            let end = u32::try_from(batch.text.len()).ok()?;
            batch
                .cuts
                .push(orchqueue_wire::reader::Cut { end, channel });
        }
        task.transcript.append(&mut Place::default(), &batch);
        let terminal = match doc.get("end").filter(|e| e.is_object()) {
            Some(end) => Terminal::End(Arc::new(end.clone())),
            None => Terminal::Error(Arc::new(stored_error(&doc["error"])?)),
        };
        task.transcript.end(terminal);
        task.run.lock().stored = Some(doc);
        match self.tasks.insert(&task) {
            Ok(()) => {
                self.linger(&task);
                Some(task)
            }
            Err(other) => Some(other),
        }
    }

    /// A task of an earlier life that can't be run again: its error is its end.
    pub(crate) fn end_unrecoverable(
        self: &Arc<Self>,
        admitted: &Record,
        admission: &Value,
        error: ErrorBody,
    ) {
        let Some(task) = self.revive_open(admitted, admission) else {
            return;
        };
        task.run.lock().ended = Some(self.clock.now());
        let terminal = Terminal::Error(Arc::new(error));
        self.record_end(&task, &terminal);
        task.transcript.end(terminal);
        if self.tasks.insert(&task).is_ok() {
            self.linger(&task);
        }
    }

    fn revive_open(&self, admitted: &Record, admission: &Value) -> Option<Arc<Task>> {
        let (request, door) = recorded_request(admission)?;
        let tenant = self.registry.write().tenant_no(&admitted.key.tenant);
        let class_name: Arc<str> = admission["priority"]
            .as_str()
            .unwrap_or("interactive")
            .into();
        Some(Arc::new(Task::new(NewTask {
            no: self.tasks.next_no(),
            key: admitted.key.clone(),
            tenant,
            level: request.determinism.unwrap_or(Level::BestEffort),
            request,
            class: orchqueue_core::ClassNo(0),
            class_name,
            door,
            correlation_id: admission["correlation_id"]
                .as_str()
                .unwrap_or_default()
                .into(),
            received: orchqueue_core::Time(admitted.at_ms.saturating_mul(1000)),
        })))
    }
}

/// The request of an admission record, read by the door it came through.
#[must_use]
pub fn recorded_request(admission: &Value) -> Option<(TaskRequest, Door)> {
    let body = admission["body"].to_string();
    let openai = |parsed: Result<(TaskRequest, _), _>| {
        let (mut request, _): (TaskRequest, orchqueue_wire::openai::ChatView) = parsed.ok()?;
        for (name, value) in admission["headers"].as_object().into_iter().flatten() {
            if let Some(value) = value.as_str() {
                orchqueue_wire::openai::apply_header(&mut request, name, value).ok()?;
            }
        }
        Some((request, Door::OpenAi))
    };
    match admission["door"].as_str()? {
        "openai_chat" => openai(orchqueue_wire::openai::parse_chat(body.as_bytes())),
        "openai_completion" => openai(orchqueue_wire::openai::parse_completion(body.as_bytes())),
        "one_trip" => Some((parse_task(body.as_bytes()).ok()?, Door::OneTrip)),
        _ => Some((parse_task(body.as_bytes()).ok()?, Door::Queued)),
    }
}

fn stored_error(value: &Value) -> Option<ErrorBody> {
    let code = Code::from_name(value["code"].as_str()?)?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let mut body =
        ErrorBody::new(code, text("message")?).with_retriable(value["retriable"].as_bool()?);
    body.engine = text("engine");
    body.retry_after_ms = value["retry_after_ms"].as_u64();
    body.policy_label = text("policy_label").map(Into::into);
    body.reason = text("reason").map(Into::into);
    body.hint = text("hint");
    body.correlation_id = text("correlation_id");
    Some(body)
}
