//! `orchqueue._core`: parse, call, convert. No logic lives here.

mod daemon;
mod pure;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::daemon::Daemon;
    #[pymodule_export]
    use super::pure::{
        error_registry, generate_receipt_key, hash_api_key, identity_digest, output_digest,
        read_stream, render_request, request_digest, sign_receipt, task_effective, verify_receipt,
    };
}
