//! The pure codecs of orchqueue: an engine's bytes in, token events out; a client's body in, frames out.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number.

pub mod adapter;
mod answer;
pub mod digest;
pub mod encode;
pub mod errors;
mod extract;
pub mod fault;
pub mod framing;
pub mod grammar;
pub mod jcs;
pub mod mapping;
pub mod openai;
pub mod profile;
pub mod reader;
pub mod receipt;
pub mod request;
mod scan;
mod text;
pub mod vocabulary;

pub use vocabulary::{Channel, FinishReason, Usage, Workload};
