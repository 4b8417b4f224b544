//! The committed receipt vectors are what the code makes today.

#[path = "../examples/receipt_vectors.rs"]
mod generator;

use std::path::Path;

// req: ORCH-4014
#[test]
fn test_committed_vectors_are_current() {
    for (name, content) in generator::files().unwrap() {
        let committed = std::fs::read_to_string(Path::new(generator::FOLDER).join(&name)).unwrap();
        assert_eq!(
            committed, content,
            "`{name}` is out of date: run `cargo run -p orchqueue-wire --example receipt_vectors`"
        );
    }
}
