//! orchqueue-server
