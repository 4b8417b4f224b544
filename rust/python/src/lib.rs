//! `orchqueue._core`: parse, call, convert. No logic lives here.
use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _core {}
