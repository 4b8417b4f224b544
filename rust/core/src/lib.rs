//! orchqueue-core: the scheduler of orchqueue as a pure state machine.
//!
//! [`Scheduler::handle`] takes the time and one [`Input`] and gives the [`Action`]s that follow. There is no
//! clock, no I/O, no thread and no chance in this crate (`clippy.toml` refuses them), so the same inputs give
//! the same actions, and a million task lives can be simulated in seconds and repeated from their inputs.
//!
//! ```
//! use orchqueue_core::*;
//!
//! let class = ClassConfig { weight: 1, capacity: 16, full_policy: FullPolicy::Reject, max_wait_ms: None };
//! let mut scheduler = Scheduler::new(Config {
//!     classes: vec![class],
//!     session_ttl_ms: 600_000,
//!     session_max_turns: 8,
//!     max_attempts: 3,
//!     reclaim_ms: 10_000,
//!     prices: TokenPrices::default(),
//! });
//! let (pool, replica, now) = (PoolNo(0), ReplicaNo(0), Time(1));
//! let timeouts = Timeouts { first_token_ms: 120_000, idle_ms: 5_000, wall_ms: 600_000 };
//! scheduler.handle(now, Input::PoolSet(PoolSpec { pool, timeouts, state: PoolState::Ready }));
//! let spec = ReplicaSpec { replica, pool, set: SetNo(0), slots: 1, reproducible: true };
//! scheduler.handle(now, Input::ReplicaAdded(spec));
//! scheduler.handle(now, Input::ReplicaReady(replica));
//! let actions = scheduler.handle(now, Input::Submit(Box::new(TaskSpec {
//!     task: TaskNo(1),
//!     tenant: TenantNo(0),
//!     class: ClassNo(0),
//!     session: None,
//!     eligible: vec![pool],
//!     strict: true,
//!     strict_explicit: false,
//!     tokens_in_estimate: 12,
//!     tokens_out_max: 256,
//!     tokens_out_expected: None,
//!     deadline: None,
//!     resumable: true,
//!     recovered: false,
//! })));
//! assert!(matches!(actions[..], [Action::Admitted { .. }, Action::Start { attempt: AttemptNo(1), .. }]));
//! ```
//!
//! One idea per module: `state` (the table of transitions), `tasks` (the records), `queue`, `fairness`
//! and `stride` (who waits and who is next), `lengths` and `ranked` (sets that know sums and ranks), `fleet` and `placement` (slots, permits and
//! the best replica), `session`, `deadline` (the forecast), `timers` (watchdogs), `pools`; `accounts`,
//! `admission`, `attempts` and `scheduler` put them together. The README beside this crate has the diagrams and the rules
//! for the caller.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod accounts;
mod admission;
mod api;
mod attempts;
mod deadline;
mod fairness;
mod fleet;
mod lengths;
mod placement;
mod pools;
mod queue;
mod ranked;
mod scheduler;
mod session;
mod state;
mod stride;
mod tasks;
mod timers;

pub use api::*;
pub use scheduler::Scheduler;
