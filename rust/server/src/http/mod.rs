//! The front door: one public port.
//!
//! `front` accepts and bounds connections, `routes` lists what Rust answers itself, `caller` tells who asks,
//! `respond` makes answers and errors, `tasks` and `openai` are the two views on tasks, `stream` is a reader of a
//! transcript, `control` hands everything else to the Python app.

pub mod caller;
pub mod control;
pub mod front;
pub mod openai;
pub mod respond;
pub mod routes;
pub mod stall;
pub mod stream;
pub mod tasks;
