//! The control plane's commands: pools and replicas come, change and go; keys are replaced.

use std::sync::Arc;

use orchqueue_core::{Input, PoolSpec, PoolState, ReplicaSpec, Timeouts};
use orchqueue_wire::adapter::Adapter;
use orchqueue_wire::request::Level;
use orchqueue_wire::vocabulary::Workload;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::daemon::Daemon;
use crate::keys::{KeyDoc, KeyTable};
use crate::registry::{Pool, Replica};
use crate::upstream::Upstream;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command can't be read: {0}")]
    Document(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

fn refused(message: impl Into<String>) -> CommandError {
    CommandError::Refused(message.into())
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    KeysSet {
        pepper_hex: String,
        keys: Vec<KeyDoc>,
    },
    PoolSet(Box<PoolDoc>),
    PoolState {
        pool: String,
        state: StateDoc,
    },
    PoolRemove {
        pool: String,
    },
    ReplicaSet(Box<ReplicaDoc>),
    ReplicaReady {
        replica: String,
    },
    ReplicaUnready {
        replica: String,
    },
    ReplicaRemove {
        replica: String,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateDoc {
    Starting,
    Ready,
    Draining,
    Failed,
}

impl From<StateDoc> for PoolState {
    fn from(doc: StateDoc) -> Self {
        match doc {
            StateDoc::Starting => Self::Starting,
            StateDoc::Ready => Self::Ready,
            StateDoc::Draining => Self::Draining,
            StateDoc::Failed => Self::Failed,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LevelDoc {
    Strict,
    BestEffort,
}

impl From<LevelDoc> for Level {
    fn from(doc: LevelDoc) -> Self {
        match doc {
            LevelDoc::Strict => Self::Strict,
            LevelDoc::BestEffort => Self::BestEffort,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutsDoc {
    first_token_ms: u64,
    idle_ms: u64,
    wall_ms: u64,
}

#[derive(Deserialize)]
struct PoolDoc {
    pool: String,
    engine: String,
    models: Vec<String>,
    ctx: u32,
    workloads: Vec<Workload>,
    determinism: LevelDoc,
    timeouts: TimeoutsDoc,
    state: StateDoc,
    #[serde(default)]
    longest_token_bytes: Option<u32>,
    adapter: Value,
}

#[derive(Deserialize)]
struct ReplicaDoc {
    pool: String,
    replica: String,
    url: String,
    #[serde(default)]
    api_key: Option<String>,
    #[serde(default)]
    ca_file: Option<String>,
    slots: u32,
    reproducible: bool,
    engine_version: String,
    model_digest: String,
    identity: Map<String, Value>,
}

impl Daemon {
    /// Performs one command of the control plane; what is refused changes nothing.
    ///
    /// # Errors
    /// [`CommandError`] names the field and what is wrong with it.
    pub fn apply(self: &Arc<Self>, json: &str) -> Result<String, CommandError> {
        match serde_json::from_str::<Command>(json)? {
            Command::KeysSet { pepper_hex, keys } => {
                let table = KeyTable::new(&pepper_hex, keys, self.config.server.is_loopback())
                    .map_err(refused)?;
                // The pools are known by now: what was accepted earlier goes before whatever comes next.
                self.runtime
                    .block_on(self.recover())
                    .map_err(|e| refused(e.to_string()))?;
                self.keys.set(table);
            }
            Command::PoolSet(doc) => self.set_pool(*doc)?,
            Command::PoolState { pool, state } => self.set_state(&pool, state.into())?,
            Command::PoolRemove { pool } => {
                let pool = self.named_pool(&pool)?;
                self.registry.write().pools.remove(&pool.no);
                self.drive(Input::PoolRemoved(pool.no));
            }
            Command::ReplicaSet(doc) => self.set_replica(*doc)?,
            Command::ReplicaReady { replica } => {
                let no = self.named_replica(&replica)?.no;
                self.drive(Input::ReplicaReady(no));
            }
            Command::ReplicaUnready { replica } => {
                let no = self.named_replica(&replica)?.no;
                self.drive(Input::ReplicaUnready(no));
            }
            Command::ReplicaRemove { replica } => {
                let no = self.named_replica(&replica)?.no;
                self.registry.write().replicas.remove(&no);
                self.drive(Input::ReplicaRemoved(no));
            }
        }
        Ok(json!({"ok": true}).to_string())
    }

    fn named_pool(&self, name: &str) -> Result<Arc<Pool>, CommandError> {
        self.registry
            .read()
            .pool(name)
            .ok_or_else(|| refused(format!("`pool`: no pool `{name}`")))
    }

    fn named_replica(&self, name: &str) -> Result<Arc<Replica>, CommandError> {
        self.registry
            .read()
            .replica(name)
            .ok_or_else(|| refused(format!("`replica`: no replica `{name}`")))
    }

    fn set_pool(self: &Arc<Self>, doc: PoolDoc) -> Result<(), CommandError> {
        let adapter = Adapter::parse(&doc.adapter.to_string())
            .map_err(|e| refused(format!("`adapter`: {e}")))?;
        let missing = doc.workloads.iter().find(|w| adapter.route(**w).is_none());
        if let Some(workload) = missing {
            return Err(refused(format!(
                "`workloads`: the adapter has no route for `{}`",
                workload.as_str()
            )));
        }
        let timeouts = Timeouts {
            first_token_ms: doc.timeouts.first_token_ms,
            idle_ms: doc.timeouts.idle_ms,
            wall_ms: doc.timeouts.wall_ms,
        };
        let mut registry = self.registry.write();
        let pool = Arc::new(Pool {
            no: registry.pool_no(&doc.pool),
            name: doc.pool.into(),
            engine: doc.engine.into(),
            models: doc.models,
            ctx: doc.ctx,
            workloads: doc.workloads,
            determinism: doc.determinism.into(),
            longest_token_bytes: doc.longest_token_bytes,
            timeouts,
            state: doc.state.into(),
            adapter: Arc::new(adapter),
        });
        registry.pools.insert(pool.no, Arc::clone(&pool));
        drop(registry);
        self.drive(Input::PoolSet(PoolSpec {
            pool: pool.no,
            timeouts,
            state: pool.state,
        }));
        Ok(())
    }

    fn set_state(self: &Arc<Self>, name: &str, state: PoolState) -> Result<(), CommandError> {
        let old = self.named_pool(name)?;
        let spec = PoolSpec {
            pool: old.no,
            timeouts: old.timeouts,
            state,
        };
        let pool = Pool {
            state,
            ..(*old).clone()
        };
        self.registry.write().pools.insert(old.no, Arc::new(pool));
        self.drive(Input::PoolSet(spec));
        Ok(())
    }

    fn set_replica(self: &Arc<Self>, doc: ReplicaDoc) -> Result<(), CommandError> {
        let pool = self.named_pool(&doc.pool)?;
        if doc.slots == 0 {
            return Err(refused("`slots`: at least 1"));
        }
        let upstream = Upstream::new(&doc.url, doc.api_key.as_deref(), doc.ca_file.as_deref())
            .map_err(|e| refused(e.to_string()))?;
        let identity: Arc<str> =
            hex::encode(orchqueue_wire::receipt::identity(&doc.identity)).into();
        let mut registry = self.registry.write();
        let mixed = registry
            .replicas_of(pool.no)
            .any(|r| r.identity != identity && *r.name != *doc.replica);
        if mixed {
            // Two identities are two sets, and a pool serves from one (ORCH-3046).
            return Err(refused(format!(
                "`identity`: replica `{}` is of another replica set than its pool",
                doc.replica
            )));
        }
        let labels = [
            &*pool.engine,
            &*doc.engine_version,
            &*pool.name,
            &*doc.replica,
        ];
        let (tokens_in, tokens_out) = (
            self.metrics.tokens_in.with(&labels),
            self.metrics.tokens_out.with(&labels),
        );
        let old = registry.replica(&doc.replica);
        let replica = Arc::new(Replica {
            no: registry.new_replica_no(&doc.replica),
            set: registry.set_no(&identity),
            name: doc.replica.into(),
            pool: Arc::clone(&pool),
            upstream,
            slots: doc.slots,
            reproducible: doc.reproducible,
            engine_version: doc.engine_version.into(),
            model_digest: doc.model_digest.into(),
            identity_fields: doc.identity,
            identity,
            tokens_in,
            tokens_out,
        });
        if let Some(old) = &old {
            registry.replicas.remove(&old.no);
        }
        registry.replicas.insert(replica.no, Arc::clone(&replica));
        drop(registry);
        if let Some(old) = old {
            self.drive(Input::ReplicaRemoved(old.no));
        }
        self.drive(Input::ReplicaAdded(ReplicaSpec {
            replica: replica.no,
            pool: pool.no,
            set: replica.set,
            slots: replica.slots,
            reproducible: replica.reproducible,
        }));
        Ok(())
    }
}
