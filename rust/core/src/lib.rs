//! orchqueue-core: the scheduler as a pure state machine.

mod api;
mod scheduler;

pub use api::*;
pub use scheduler::Scheduler;
