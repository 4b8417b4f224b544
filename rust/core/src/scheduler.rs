//! The scheduler: inputs in, actions out.

use crate::api::{
    Action, ClassNo, Config, Input, PoolNo, ReplicaNo, ReplicaView, SessionKey, SessionView,
    TaskNo, TaskView, Time,
};

/// The scheduler of one daemon.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
}

impl Scheduler {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    pub fn handle(&mut self, _now: Time, _input: Input) -> Vec<Action> {
        Vec::new()
    }

    #[must_use]
    pub fn next_wakeup(&self) -> Option<Time> {
        None
    }

    #[must_use]
    pub fn task(&self, _task: TaskNo) -> Option<TaskView> {
        None
    }

    #[must_use]
    pub fn queue_depth(&self, _pool: PoolNo, _class: ClassNo) -> usize {
        0
    }

    #[must_use]
    pub fn replica(&self, _replica: ReplicaNo) -> Option<ReplicaView> {
        None
    }

    #[must_use]
    pub fn session(&self, _now: Time, _key: SessionKey) -> Option<SessionView> {
        None
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.config.classes.is_empty()
    }
}
