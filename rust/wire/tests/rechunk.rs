//! However the network cuts a body into pieces, the same comes out of it.
//!
//! The checker is held against a reader that treats every piece as whole events: it must be caught.

#![allow(clippy::unwrap_used, reason = "a test file: a failure is a panic")]

mod recorded;

use std::sync::Arc;

use orchqueue_wire::grammar::Grammar;
use orchqueue_wire::reader::{StreamState, TokenBatch};
use proptest::prelude::*;
use recorded::{ALL, Reading, read};

type Read = fn(Arc<Grammar>, &[&[u8]]) -> Reading;

/// The first way to cut `body` in two whose reading differs from that of the whole, if there is one.
fn difference(grammar: &Arc<Grammar>, body: &[u8], reader: Read) -> Option<usize> {
    let whole = reader(Arc::clone(grammar), &[body]);
    (0..=body.len()).find(|at| {
        let (left, right) = body.split_at(*at);
        reader(Arc::clone(grammar), &[left, right]) != whole
    })
}

fn exact(grammar: Arc<Grammar>, pieces: &[&[u8]]) -> Reading {
    read(grammar, pieces)
}

/// Takes every piece for a body of its own and puts the texts together.
fn naive(grammar: Arc<Grammar>, pieces: &[&[u8]]) -> Reading {
    let readings = pieces
        .iter()
        .map(|piece| read(Arc::clone(&grammar), &[piece]));
    let joined = readings.reduce(|mut all, next| {
        all.events.extend(next.events);
        all.ids.extend(next.ids);
        all.tokens_out += next.tokens_out;
        all.state = next.state;
        all
    });
    joined.unwrap_or_else(|| read::<&[u8]>(grammar, &[]))
}

/// The same stream as other servers write it.
fn variants(body: &str) -> Vec<Vec<u8>> {
    let mut all = vec![
        body.to_owned(),
        body.replace('\n', "\r\n"),
        format!("\u{feff}{body}"),
    ];
    if body.starts_with("data:") {
        all.push(body.replace('\n', "\r"));
        all.push(body.replace("data: ", "data:"));
        all.push(body.replace("data:", ": ping\nevent: token\ndata:"));
        all.push(body.replace(",\"", ",\ndata: \""));
    }
    all.into_iter().map(String::into_bytes).collect()
}

// req: ORCH-4063
#[test]
fn test_every_cut_in_two_reads_as_the_whole() {
    for recording in ALL {
        let grammar = recording.grammar();
        let cut = difference(&grammar, recording.body.as_bytes(), exact);
        assert_eq!(cut, None, "{}", recording.name);
    }
}

// req: ORCH-4063
#[test]
fn test_byte_by_byte_reads_as_the_whole() {
    for recording in ALL {
        let bytes: Vec<&[u8]> = recording.body.as_bytes().chunks(1).collect();
        assert_eq!(
            read(recording.grammar(), &bytes),
            recording.read(),
            "{}",
            recording.name
        );
    }
}

#[test]
fn test_other_framings_of_the_same_stream_read_alike_however_cut() {
    for recording in ALL {
        let grammar = recording.grammar();
        for (number, body) in variants(recording.body).iter().enumerate() {
            let whole = read(Arc::clone(&grammar), &[body]);
            assert_eq!(
                whole,
                recording.read(),
                "{} variant {number}",
                recording.name
            );
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(
                read(Arc::clone(&grammar), &bytes),
                whole,
                "{} variant {number}",
                recording.name
            );
            for size in [2, 3, 5, 7, 16, 61] {
                let pieces: Vec<&[u8]> = body.chunks(size).collect();
                assert_eq!(
                    read(Arc::clone(&grammar), &pieces),
                    whole,
                    "{} by {size}",
                    recording.name
                );
            }
        }
    }
}

#[test]
fn test_the_checker_catches_a_reader_that_trusts_the_pieces() {
    for recording in ALL {
        let cut = difference(&recording.grammar(), recording.body.as_bytes(), naive);
        assert!(cut.is_some(), "{} was not caught", recording.name);
    }
}

fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    places.extend([0, body.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &body[pair[0]..pair[1]])
        .collect()
}

/// Bytes that look like a stream, damaged at random.
fn damaged() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (0..ALL.len(), 0..7_usize, edits).prop_map(|(recording, variant, edits)| {
        let variants = variants(ALL[recording].body);
        let mut body = variants[variant % variants.len()].clone();
        for (place, byte) in edits {
            let place = place.index(body.len());
            body[place] = byte;
        }
        (recording, body)
    })
}

proptest! {
    #[test]
    fn test_random_cuts_of_damaged_streams_read_as_the_whole(
        (recording, body) in damaged(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)
    ) {
        let grammar = ALL[recording].grammar();
        let whole = read(Arc::clone(&grammar), &[&body]);
        prop_assert!(whole.state != StreamState::Open);
        prop_assert_eq!(read(grammar, &pieces(&body, &cuts)), whole);
    }

    #[test]
    fn test_random_bytes_never_panic_and_stay_within_bounds(
        recording in 0..ALL.len(), body in prop::collection::vec(any::<u8>(), 0..2000), size in 1..50_usize
    ) {
        let mut reader = orchqueue_wire::reader::StreamReader::new(ALL[recording].grammar());
        let mut batch = TokenBatch::default();
        for piece in body.chunks(size) {
            _ = reader.push(piece, &mut batch);
        }
        prop_assert!(reader.finish(&mut batch) != StreamState::Open);
        // A byte that is no character becomes three bytes of text at most; an event needs more bytes than that.
        prop_assert!(batch.text.len() <= 3 * body.len() && batch.ids.len() <= body.len());
    }
}
