//! The daemon of orchqueue.
//!
//! | module | owns |
//! |---|---|
//! | `daemon` | everything; start, recovery, shutdown |
//! | `config`, `command` | what the Python side hands over, at start and later |
//! | `http` | the front door: routes, streams, the OpenAI view, the way to the control app |
//! | `admission` | from a request to an admitted task |
//! | `dispatch` | the scheduler's lock; actions performed in order |
//! | `attempt`, `upstream` | one exchange with a replica; connections to replicas |
//! | `transcript`, `task` | a task's recorded stream; a task's life |
//! | `finish`, `receipt` | the one terminal event; the proof |
//! | `recovery` | from the journal back to tasks |
//! | `journal` | durable records, group commit |
//! | `registry`, `keys`, `metrics`, `log`, `views`, `clock` | names, principals, counters, lines, answers, time |

pub mod admission;
pub mod attempt;
pub mod clock;
pub mod command;
pub mod config;
pub mod daemon;
pub mod dispatch;
pub mod finish;
pub mod http;
pub mod journal;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod receipt;
pub mod recovery;
pub mod registry;
pub mod task;
pub mod transcript;
pub mod upstream;
pub mod views;
