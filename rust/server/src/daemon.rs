//! One `Daemon` owns everything; nothing is global, so two can live in one process.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchqueue_core::{Input, Time};
use orchqueue_wire::errors::{Code, ErrorBody};
use orchqueue_wire::fault::EngineFault;
use parking_lot::{Condvar, Mutex, RwLock};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{ConfigError, RuntimeConfig};
use crate::dispatch::Dispatch;
use crate::journal::{Journal, JournalError};
use crate::keys::Keys;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::receipt::ReceiptKeys;
use crate::registry::{Registry, Replica};
use crate::task::{Task, Tasks};
use crate::transcript::Terminal;

/// How long an ended task stays in memory; after that the journal answers for it.
const LINGER_MS: u64 = 5_000;
/// Most ended tasks in memory, however fast they end.
const LINGER_MOST: usize = 8_192;
/// Most events that wait for the control plane; the oldest is dropped (probes are asked for again).
const EVENTS_MOST: usize = 4_096;

pub struct Daemon {
    pub config: RuntimeConfig,
    pub clock: Clock,
    pub classes: Vec<Arc<str>>,
    pub(crate) dispatch: Dispatch,
    pub tasks: Tasks,
    pub registry: RwLock<Registry>,
    pub journal: Journal,
    pub metrics: Metrics,
    pub keys: Keys,
    pub(crate) receipt_keys: ReceiptKeys,
    pub(crate) log: Log,
    pub events: Events,
    pub(crate) runtime: Handle,
    /// Cancelled when the daemon is over: every connection and loop ends.
    pub stopped: CancellationToken,
    draining: AtomicBool,
    pub(crate) recovered: AtomicBool,
    lingering: Mutex<VecDeque<(Time, u64, Arc<Task>)>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Keys(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("can't listen on {address}: {cause}")]
    Bind {
        address: String,
        cause: std::io::Error,
    },
    #[error("the runtime can't be started: {0}")]
    Runtime(std::io::Error),
}

/// What wants the control plane's attention.
#[derive(Default)]
pub struct Events {
    queue: Mutex<VecDeque<Value>>,
    bell: Condvar,
}

impl Events {
    pub fn push(&self, event: Value) {
        let mut queue = self.queue.lock();
        if queue.len() >= EVENTS_MOST {
            queue.pop_front();
        }
        queue.push_back(event);
        self.bell.notify_one();
    }

    /// The next event, or nothing after `timeout`.
    #[must_use]
    pub fn next(&self, timeout: Duration) -> Option<Value> {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            self.bell.wait_for(&mut queue, timeout);
        }
        queue.pop_front()
    }
}

/// The daemon with its threads: what an embedding program holds.
pub struct Owner {
    pub daemon: Arc<Daemon>,
    runtime: Mutex<Option<Runtime>>,
    /// When the shutdown that was asked for gives up waiting.
    until: watch::Sender<Option<tokio::time::Instant>>,
}

impl Owner {
    /// Opens the journal; nothing listens yet.
    ///
    /// # Errors
    /// [`StartError`] when the document, the keys or the journal are not usable.
    pub fn new(config_json: &str) -> Result<Self, StartError> {
        let config = RuntimeConfig::parse(config_json)?;
        let threads = match config.server.threads {
            0 => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(4),
            n => n.min(64),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("orchqueue-front")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let daemon = Arc::new(Daemon {
            clock: Clock::start(),
            classes: config
                .classes
                .iter()
                .map(|c| c.name.as_str().into())
                .collect(),
            dispatch: Dispatch::new(config.core()),
            tasks: Tasks::default(),
            registry: RwLock::default(),
            journal: Journal::open(Path::new(&config.journal.path), config.retention)?,
            metrics: Metrics::default(),
            keys: Keys::default(),
            receipt_keys: ReceiptKeys::new(&config.receipt_keys).map_err(StartError::Keys)?,
            log: Log::start(),
            events: Events::default(),
            runtime: runtime.handle().clone(),
            stopped: CancellationToken::new(),
            draining: AtomicBool::new(false),
            recovered: AtomicBool::new(false),
            lingering: Mutex::default(),
            config,
        });
        Ok(Self {
            daemon,
            runtime: Mutex::new(Some(runtime)),
            until: watch::channel(None).0,
        })
    }

    /// Opens the front door; returns its address. Requests wait until the control plane has told its pools and,
    /// with the first keys, that it is there: then what an earlier life had accepted is taken up before them.
    ///
    /// # Errors
    /// [`StartError::Bind`] when the address is taken.
    pub fn start(&self) -> Result<String, StartError> {
        let daemon = Arc::clone(&self.daemon);
        daemon.runtime.clone().block_on(async move {
            let listener = crate::http::front::bind(&daemon.config.server).await?;
            let address = listener
                .local_addr()
                .map_or_else(|_| daemon.config.server.host.clone(), |a| a.to_string());
            tokio::spawn(Arc::clone(&daemon).keep_time());
            tokio::spawn(Arc::clone(&daemon).sweep());
            tokio::spawn(crate::http::front::serve(listener, daemon));
            Ok(address)
        })
    }

    /// Stops admitting, lets what runs finish until the deadline, hands back the rest (the journal keeps it open
    /// for the next life), writes everything and closes. Called again while it runs, it can only shorten the
    /// deadline; every call returns when the daemon is down.
    pub fn shutdown(&self, deadline: Duration) {
        let until = tokio::time::Instant::now() + deadline;
        self.until.send_if_modified(|known| {
            let sooner = known.is_none_or(|known| until < known);
            if sooner {
                *known = Some(until);
            }
            sooner
        });
        let mut runtime = self.runtime.lock();
        let Some(runtime) = runtime.take() else {
            return;
        };
        let daemon = Arc::clone(&self.daemon);
        runtime.block_on(async {
            daemon.draining.store(true, Ordering::Relaxed);
            daemon.drive(Input::StopAdmitting);
            self.drained().await;
            daemon.hand_back();
            // Readers get their last event before the connections go.
            tokio::time::sleep(Duration::from_millis(50)).await;
            daemon.stopped.cancel();
            let _ = daemon.journal.barrier().await;
        });
        daemon.journal.close();
        daemon.events.push(json!({"event": "stopped"}));
        runtime.shutdown_timeout(Duration::from_secs(1));
    }

    /// Nothing runs or waits any more, or the deadline has come.
    async fn drained(&self) {
        let mut deadline = self.until.subscribe();
        loop {
            let until = deadline
                .borrow_and_update()
                .unwrap_or_else(tokio::time::Instant::now);
            if tokio::time::Instant::now() >= until
                || self.daemon.dispatch.scheduler.lock().is_idle()
            {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                _ = deadline.changed() => {}
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

impl Daemon {
    /// The daemon admits nothing any more.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Drops journal records that are folded and past retention; returns how many.
    #[must_use]
    pub fn trim_journal(&self, folded_seq: i64) -> usize {
        self.journal
            .trim(folded_seq, crate::clock::wall_ms(self.clock.now()))
    }

    pub(crate) fn log_error(&self, message: &'static str, cause: &dyn std::fmt::Display) {
        self.log.line(
            self.clock.now(),
            "error",
            message,
            json!({"cause": cause.to_string()}),
        );
    }

    pub(crate) fn note_fault(&self, task: &Task, replica: &Replica, fault: &EngineFault) {
        let fields = json!({
            "task_id": task.id(),
            "tenant_id": &*task.key.tenant,
            "engine": &*replica.pool.engine,
            "pool_id": &*replica.pool.name,
            "replica_id": &*replica.name,
            "fault": fault.class,
            // An engine's message may quote the prompt.
            "cause": self.config.log_content.then_some(&fault.message),
        });
        self.log
            .line(self.clock.now(), "warning", "attempt failed", fields);
    }

    /// A repeated decode differed: count it, keep the evidence for the operator, have every replica of the task probed.
    pub(crate) fn note_divergence(&self, task: &Task, replica: &Replica, k: u64) {
        let pool = &replica.pool;
        self.metrics
            .divergences
            .with(&[&*pool.engine, &*pool.name])
            .add(1);
        let fields = json!({"task_id": task.id(), "pool_id": &*pool.name, "replica_id": &*replica.name, "byte": k});
        self.log.line(
            self.clock.now(),
            "error",
            "a repeated decode diverged",
            fields,
        );
        let folder = Path::new(&self.config.journal.path).with_extension("divergences");
        let file = folder.join(format!("{}-{}.json", task.id(), task.no.0));
        let evidence = divergence_record(task, k).to_string();
        let log = self.log.clone();
        let now = self.clock.now();
        self.runtime.spawn_blocking(move || {
            if let Err(e) = write_evidence(&folder, &file, &evidence) {
                log.line(
                    now,
                    "error",
                    "the evidence of a divergence can't be written",
                    json!({"cause": e.to_string()}),
                );
            }
        });
        for attempt in &task.run.lock().attempts {
            self.events.push(json!({"event": "probe", "replica": &*attempt.replica.name, "reason": "divergence"}));
        }
    }

    /// Keeps an ended task at hand for a while.
    pub(crate) fn linger(&self, task: &Arc<Task>) {
        let until = self.clock.now().plus_ms(LINGER_MS);
        self.lingering
            .lock()
            .push_back((until, self.journal.sent(), Arc::clone(task)));
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = self.stopped.cancelled() => return,
            }
            let now = self.clock.now();
            let settled = self.journal.settled();
            // Memory is given up only for what the journal has; what is let go of is freed without the lock.
            let mut lingering = self.lingering.lock();
            let most = lingering.len();
            let over = lingering
                .iter()
                .enumerate()
                .take_while(|(i, (until, sent, _))| {
                    *sent <= settled && (*until <= now || most - i > LINGER_MOST)
                })
                .count();
            let gone: Vec<_> = lingering.drain(..over).collect();
            drop(lingering);
            for (_, _, task) in &gone {
                self.tasks.remove(task);
            }
        }
    }

    /// Ends, on the client's side only, what did not finish in time; the journal keeps it open.
    fn hand_back(&self) {
        let body = ErrorBody::new(
            Code::PoolUnready,
            "the daemon is shutting down; the task is kept and goes on after the restart",
        )
        .with_reason("shutting_down")
        .with_hint("connect again with the same `task_id` once the daemon is back");
        for task in self.tasks.all() {
            task.transcript.end(Terminal::Error(Arc::new(body.clone())));
        }
    }
}

/// Most divergences whose evidence is kept: the first ones tell as much as the thousandth.
const EVIDENCE_MOST: usize = 200;

fn write_evidence(folder: &Path, file: &Path, evidence: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    if std::fs::read_dir(folder)?.count() >= EVIDENCE_MOST {
        return Ok(());
    }
    std::fs::write(file, evidence)
}

/// What an operator needs to find out which replica is wrong.
fn divergence_record(task: &Task, k: u64) -> Value {
    let sent: String = task
        .transcript
        .segments()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    json!({
        "task_id": task.id(),
        "byte": k,
        "effective_request": task.effective,
        "sent": sent,
        "attempts": crate::finish::attempts(&task.run.lock().attempts),
        "identity": task.run.lock().attempts.last().map(|a| a.replica.identity_fields.clone()),
    })
}
