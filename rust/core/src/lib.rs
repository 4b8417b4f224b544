//! orchqueue-core
