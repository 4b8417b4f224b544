//! The pure codecs of orchqueue: an engine's bytes in, token events out; a client's body in, frames out.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number.

pub mod vocabulary;

pub use vocabulary::{Channel, FinishReason, Usage, Workload};
