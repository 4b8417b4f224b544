//! orchqueue-core: the scheduler as a pure state machine.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
mod api;
mod attempts;
mod deadline;
mod fairness;
mod fleet;
mod placement;
mod pools;
mod queue;
mod ranked;
mod scheduler;
mod session;
mod state;
mod tasks;
mod timers;

pub use api::*;
pub use scheduler::Scheduler;
