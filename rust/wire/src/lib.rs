//! orchqueue-wire
