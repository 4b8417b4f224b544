//! What can serve: pools, replicas and their names. The scheduler knows numbers; this is the directory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use orchqueue_core::{PoolNo, PoolState, ReplicaNo, SetNo, TenantNo, Timeouts};
use orchqueue_wire::adapter::Adapter;
use orchqueue_wire::request::Level;
use orchqueue_wire::vocabulary::Workload;
use serde_json::{Map, Value};

use crate::metrics::Counter;
use crate::upstream::Upstream;

#[derive(Clone, Debug)]
pub struct Pool {
    pub no: PoolNo,
    pub name: Arc<str>,
    pub engine: Arc<str>,
    /// Catalog names and digests under which clients may ask for it; the first is the display name.
    pub models: Vec<String>,
    pub ctx: u32,
    pub workloads: Vec<Workload>,
    /// Level of a task that does not say.
    pub determinism: Level,
    pub longest_token_bytes: Option<u32>,
    pub timeouts: Timeouts,
    pub state: PoolState,
    pub adapter: Arc<Adapter>,
}

impl Pool {
    #[must_use]
    pub fn serves_model(&self, model: &str) -> bool {
        self.models.iter().any(|m| m == model)
    }
}

pub struct Replica {
    pub no: ReplicaNo,
    pub name: Arc<str>,
    pub pool: Arc<Pool>,
    pub upstream: Upstream,
    pub slots: u32,
    pub reproducible: bool,
    pub engine_version: Arc<str>,
    pub model_digest: Arc<str>,
    /// The fields whose digest is the identity of its set (determinism.md).
    pub identity_fields: Map<String, Value>,
    pub identity: Arc<str>,
    pub set: SetNo,
    pub tokens_in: Arc<Counter>,
    pub tokens_out: Arc<Counter>,
}

/// The directory; a new one of an entry replaces the old, running attempts keep theirs.
#[derive(Default)]
pub struct Registry {
    pub pools: BTreeMap<PoolNo, Arc<Pool>>,
    pub replicas: BTreeMap<ReplicaNo, Arc<Replica>>,
    pool_names: HashMap<String, PoolNo>,
    replica_names: HashMap<String, ReplicaNo>,
    sets: HashMap<String, SetNo>,
    tenants: HashMap<Arc<str>, TenantNo>,
    next_replica: u32,
}

impl Registry {
    /// The number of a pool name, given on first use.
    pub fn pool_no(&mut self, name: &str) -> PoolNo {
        let next = PoolNo(u32::try_from(self.pool_names.len()).unwrap_or(u32::MAX));
        *self.pool_names.entry(name.to_owned()).or_insert(next)
    }

    /// A number that no replica had before: a replica that comes back is another one.
    pub fn new_replica_no(&mut self, name: &str) -> ReplicaNo {
        let no = ReplicaNo(self.next_replica);
        self.next_replica += 1;
        self.replica_names.insert(name.to_owned(), no);
        no
    }

    /// The number of an identity, given on first use.
    pub fn set_no(&mut self, identity: &str) -> SetNo {
        let next = SetNo(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        *self.sets.entry(identity.to_owned()).or_insert(next)
    }

    /// The number of a tenant, given on first use.
    pub fn tenant_no(&mut self, name: &Arc<str>) -> TenantNo {
        let next = TenantNo(u32::try_from(self.tenants.len()).unwrap_or(u32::MAX));
        *self.tenants.entry(Arc::clone(name)).or_insert(next)
    }

    #[must_use]
    pub fn known_tenant(&self, name: &str) -> Option<TenantNo> {
        self.tenants.get(name).copied()
    }

    #[must_use]
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pool_names
            .get(name)
            .and_then(|no| self.pools.get(no))
            .cloned()
    }

    #[must_use]
    pub fn replica(&self, name: &str) -> Option<Arc<Replica>> {
        self.replica_names
            .get(name)
            .and_then(|no| self.replicas.get(no))
            .cloned()
    }

    /// Replicas of a pool, by number.
    pub fn replicas_of(&self, pool: PoolNo) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.values().filter(move |r| r.pool.no == pool)
    }

    /// What a pool would keep now: the identity of its set and whether that is reproducible.
    #[must_use]
    pub fn set_of(&self, pool: PoolNo) -> Option<(Arc<str>, bool)> {
        self.replicas_of(pool)
            .next()
            .map(|r| (Arc::clone(&r.identity), r.reproducible))
    }
}
