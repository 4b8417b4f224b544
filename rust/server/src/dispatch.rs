//! Drives the scheduler: one lock, inputs in, actions performed in their order.
//!
//! Actions are performed while the lock is held, so no two threads can perform them in another order than the
//! scheduler decided; each is a spawn, a flag or a queue push. Only the making of terminal events (JSON,
//! receipt) is put off until the lock is free: a task that has ended accepts no further input anyway.

use std::sync::Arc;

use orchqueue_core::{
    Action, AttemptEnd, AttemptNo, EndReason, Forecast, Input, PoolNo, Refusal, ReplicaNo,
    Scheduler, StopReason, TaskNo, Time,
};
use orchqueue_wire::fault::{EngineFault, FaultClass};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::attempt::Attempt;
use crate::daemon::Daemon;
use crate::journal::{Kind, Record};
use crate::task::{AttemptRecord, Task};

/// How soon a cancel that had no effect is said again.
const CANCEL_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);

/// The scheduler and the bell that rings when its next wake-up has changed.
pub struct Dispatch {
    pub(crate) scheduler: Mutex<Scheduler>,
    wakeup: Notify,
}

/// The answer to a submission.
#[derive(Debug)]
pub enum Answer {
    Admitted(Forecast),
    Refused {
        refusal: Refusal,
        retry_after_ms: Option<u64>,
        forecast: Forecast,
    },
}

/// What is left to do once the lock is free.
#[derive(Default)]
struct Deferred {
    answer: Option<Answer>,
    ended: Vec<(TaskNo, EndReason)>,
}

impl Dispatch {
    #[must_use]
    pub fn new(config: orchqueue_core::Config) -> Self {
        Self {
            scheduler: Mutex::new(Scheduler::new(config)),
            wakeup: Notify::new(),
        }
    }
}

impl Daemon {
    /// Feeds one input and performs what follows. Returns the answer if the input was a submission.
    pub fn drive(self: &Arc<Self>, input: Input) -> Option<Answer> {
        if self.stopped.is_cancelled() {
            // The daemon is over: what is still open is the next life's, and nothing may be spawned any more.
            return None;
        }
        let mut deferred = Deferred::default();
        {
            let mut scheduler = self.dispatch.scheduler.lock();
            let mut inputs = vec![input];
            while let Some(input) = inputs.pop() {
                let before = scheduler.next_wakeup();
                for action in scheduler.handle(self.clock.now(), input) {
                    self.perform(action, &mut deferred, &mut inputs);
                }
                if scheduler.next_wakeup() != before {
                    self.dispatch.wakeup.notify_one();
                }
            }
        }
        for (no, reason) in deferred.ended {
            if let Some(task) = self.tasks.by_no(no) {
                self.finish(&task, reason);
            }
        }
        deferred.answer
    }

    fn perform(self: &Arc<Self>, action: Action, deferred: &mut Deferred, inputs: &mut Vec<Input>) {
        match action {
            Action::Admitted {
                task,
                pool,
                forecast,
            } => {
                self.admitted(task, pool, forecast);
                deferred.answer = Some(Answer::Admitted(forecast));
            }
            Action::Rejected {
                refusal,
                retry_after_ms,
                forecast,
                ..
            } => {
                deferred.answer = Some(Answer::Refused {
                    refusal,
                    retry_after_ms,
                    forecast,
                });
            }
            Action::Start {
                task,
                attempt,
                replica,
            } => {
                if let Err(end) = self.start(task, attempt, replica) {
                    inputs.push(Input::AttemptEnded {
                        task,
                        attempt,
                        end,
                        tokens_out: 0,
                    });
                }
            }
            Action::Stop {
                task,
                attempt,
                reason,
                ..
            } => self.stop(task, attempt, reason),
            Action::ReportProgress { task, attempt } => inputs.extend(self.progress(task, attempt)),
            Action::End { task, reason } => {
                // Closed here, in the order of decisions; told when the lock is free.
                if let Some(task) = self.tasks.by_no(task) {
                    task.transcript.close(reason == EndReason::Canceled);
                }
                deferred.ended.push((task, reason));
            }
            Action::Probe { replica } => self.ask_for_probe(replica),
        }
    }

    fn admitted(&self, no: TaskNo, pool: PoolNo, forecast: Forecast) {
        let Some(task) = self.tasks.by_no(no) else {
            return;
        };
        let pool = self.registry.read().pools.get(&pool).cloned();
        let mut run = task.run.lock();
        if let Some(pool) = &pool {
            self.metrics
                .tasks_enqueued
                .with(&[&pool.engine, &pool.name, &task.class_name])
                .add(1);
        }
        if let Some(pool) = &pool {
            task.inherit(pool.determinism);
        }
        run.pool = pool;
        run.forecast = forecast;
        if let Some(admission) = run.admission.take() {
            let record = Record {
                key: task.key.clone(),
                kind: Kind::Admitted,
                at_ms: crate::clock::wall_ms(task.received),
                data: admission.data,
            };
            self.journal.append_with(record, admission.ack);
        }
    }

    fn start(
        self: &Arc<Self>,
        no: TaskNo,
        attempt: AttemptNo,
        replica: ReplicaNo,
    ) -> Result<(), AttemptEnd> {
        let lost = AttemptEnd::Failed { resumable: true };
        let task = self.tasks.by_no(no).ok_or(lost.clone())?;
        let registry = self.registry.read();
        let replica = registry.replicas.get(&replica).cloned().ok_or(lost)?;
        let pool = registry.pools.get(&replica.pool.no).cloned();
        drop(registry);
        let model = task.request.model_ref.as_deref();
        if model.is_some_and(|model| pool.is_some_and(|pool| !pool.serves_model(model))) {
            // Admitted while the pool did not know its model's names yet, and it is another one.
            task.run.lock().fault = Some(EngineFault {
                class: FaultClass::InvalidRequest,
                message: "the pool does not serve `model_ref`".to_owned(),
            });
            return Err(AttemptEnd::Refused);
        }
        let stop = CancellationToken::new();
        let now = self.clock.now();
        let pool = &replica.pool;
        let labels = [
            &*pool.engine,
            &*replica.engine_version,
            &*pool.name,
            &*replica.name,
            &*task.class_name,
        ];
        self.metrics.tasks_started.with(&labels).add(1);
        task.progress_us
            .store(0, std::sync::atomic::Ordering::Relaxed);
        if task.transcript.k() > 0 {
            self.metrics
                .failovers
                .with(&[&*pool.engine, &*pool.name])
                .add(1);
        }
        {
            let mut run = task.run.lock();
            run.stop = Some(stop.clone());
            run.pool = Some(Arc::clone(&replica.pool));
            run.attempts.push(AttemptRecord {
                attempt,
                replica: Arc::clone(&replica),
                started: now,
                first_token: None,
                ended: None,
                outcome: "running",
                redecoded: 0,
                tokens_out: 0,
            });
        }
        self.journal.append(Record {
            key: task.key.clone(),
            kind: Kind::Started,
            at_ms: crate::clock::wall_ms(now),
            data: format!(
                "{{\"attempt\":{},\"replica\":{}}}",
                attempt.0,
                serde_json::json!(&*replica.name)
            ),
        });
        let attempt = Attempt::new(Arc::clone(self), task, attempt, replica);
        self.runtime.spawn(attempt.run(stop));
        Ok(())
    }

    fn stop(&self, no: TaskNo, attempt: AttemptNo, reason: StopReason) {
        let Some(task) = self.tasks.by_no(no) else {
            return;
        };
        let now = self.clock.now();
        let mut run = task.run.lock();
        run.with_attempt(attempt, |record| {
            record.ended = Some(now);
            record.outcome = match reason {
                StopReason::Canceled => "canceled",
                StopReason::TimedOut(_) => "timed_out",
            };
            record.tokens_out = task.tokens_out.load(std::sync::atomic::Ordering::Relaxed);
        });
        if let Some(stop) = run.stop.take() {
            stop.cancel();
        }
    }

    fn progress(&self, no: TaskNo, attempt: AttemptNo) -> Option<Input> {
        let task = self.tasks.by_no(no)?;
        let at = Time(task.progress_us.load(std::sync::atomic::Ordering::Relaxed));
        let tokens_out = task.tokens_out.load(std::sync::atomic::Ordering::Relaxed);
        Some(Input::Progress {
            task: no,
            attempt,
            at,
            tokens_out,
        })
    }

    fn ask_for_probe(&self, replica: ReplicaNo) {
        let name = self
            .registry
            .read()
            .replicas
            .get(&replica)
            .map(|r| Arc::clone(&r.name));
        if let Some(name) = name {
            self.events
                .push(serde_json::json!({"event": "probe", "replica": &*name}));
        }
    }

    /// Ticks the scheduler whenever it asked to be woken; ends with the daemon.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.dispatch.scheduler.lock().next_wakeup();
            let bell = self.dispatch.wakeup.notified();
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.instant(at)) => { self.drive(Input::Tick); }
                    () = bell => {}
                    () = self.stopped.cancelled() => return,
                },
                None => tokio::select! {
                    () = bell => {}
                    () = self.stopped.cancelled() => return,
                },
            }
        }
    }

    /// Cancels a task; when this returns its stream has ended, and no further token reaches any reader.
    pub async fn cancel(self: &Arc<Self>, task: &Arc<Task>) {
        let reader = task.transcript.reader();
        loop {
            self.drive(Input::Cancel(task.no));
            let ended = std::future::poll_fn(|cx| match task.transcript.poll_end(cx, reader) {
                Some(_) => std::task::Poll::Ready(()),
                None => std::task::Poll::Pending,
            });
            // A cancel that overtakes the admission of its task finds nothing to cancel yet: say it again.
            if tokio::time::timeout(CANCEL_AGAIN, ended).await.is_ok()
                || self.stopped.is_cancelled()
            {
                task.transcript.forget(reader);
                return;
            }
        }
    }
}
