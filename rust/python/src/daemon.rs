//! The daemon's handle.

use std::time::Duration;

use orchqueue_server::daemon::{Owner, StartError};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// Everything the daemon owns, behind one handle.
#[pyclass(frozen, module = "orchqueue._core")]
pub struct Daemon(Owner);

fn raised(error: &StartError) -> PyErr {
    match error {
        StartError::Config(_) | StartError::Keys(_) => PyValueError::new_err(error.to_string()),
        StartError::Journal(_) | StartError::Bind { .. } | StartError::Runtime(_) => {
            PyOSError::new_err(error.to_string())
        }
    }
}

/// One row of the journal: sequence number, tenant, task id, kind, time in milliseconds, data as JSON.
type Row = (i64, String, String, &'static str, u64, String);

#[pymethods]
impl Daemon {
    #[new]
    fn new(py: Python<'_>, config_json: &str) -> PyResult<Self> {
        py.detach(|| Owner::new(config_json))
            .map(Self)
            .map_err(|e| raised(&e))
    }

    fn start(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.start()).map_err(|e| raised(&e))
    }

    fn apply(&self, py: Python<'_>, command_json: &str) -> PyResult<String> {
        py.detach(|| self.0.daemon.apply(command_json))
            .map_err(|e| PyValueError::new_err(e.to_string()))
    }

    fn next_event(&self, py: Python<'_>, timeout_ms: u64) -> Option<String> {
        py.detach(|| self.0.daemon.events.next(Duration::from_millis(timeout_ms)))
            .map(|e| e.to_string())
    }

    fn snapshot(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.daemon.snapshot().to_string())
    }

    fn metrics(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.daemon.metrics_view().to_string())
    }

    fn journal_read(&self, py: Python<'_>, after_seq: i64, limit: usize) -> PyResult<Vec<Row>> {
        let rows = py.detach(|| self.0.daemon.journal.read(after_seq, limit));
        let rows = rows.map_err(|e| PyOSError::new_err(e.to_string()))?;
        let id = orchqueue_wire::request::format_uuid;
        Ok(rows
            .into_iter()
            .map(|r| {
                (
                    r.seq,
                    r.record.key.tenant.to_string(),
                    id(&r.record.key.id),
                    r.record.kind.as_str(),
                    r.record.at_ms,
                    r.record.data,
                )
            })
            .collect())
    }

    fn journal_trim(&self, py: Python<'_>, folded_seq: i64) -> usize {
        py.detach(|| self.0.daemon.trim_journal(folded_seq))
    }

    fn shutdown(&self, py: Python<'_>, deadline_ms: u64) {
        py.detach(|| self.0.shutdown(Duration::from_millis(deadline_ms)));
    }
}
