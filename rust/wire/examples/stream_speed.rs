//! Prints what reading one event of an engine's stream costs: a llama.cpp burst of 64 events, and a paced one.
//!
//! `cargo run --release -p orchqueue-wire --example stream_speed`

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use orchqueue_wire::grammar::Grammar;
use orchqueue_wire::reader::{StreamReader, StreamState, TokenBatch};

const GRAMMAR: &str = include_str!("../tests/fixtures/llamacpp_completion.json");
const EVENTS: u32 = 64;
const STREAMS: u32 = 2000;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let grammar = Arc::new(Grammar::parse(GRAMMAR)?);
    let events: Vec<String> = (1..=EVENTS).map(event).collect();
    let burst = [events.concat()];
    let mut out = std::io::stdout();
    for (name, pieces) in [("burst", &burst[..]), ("paced", &events[..])] {
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| nanoseconds_per_event(&grammar, pieces))
            .collect();
        rounds.sort_by(f64::total_cmp);
        let (low, median, high) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        writeln!(
            out,
            "{name}: {median:.0} ns per event (lowest {low:.0}, highest {high:.0}, {ROUNDS} rounds)"
        )?;
    }
    Ok(())
}

/// One token as llama.cpp sends it, every fifth with an escape in its text.
fn event(number: u32) -> String {
    let text = if number.is_multiple_of(5) {
        r"\n"
    } else {
        " haiku"
    };
    format!(
        "data: {{\"index\":0,\"content\":\"{text}\",\"tokens\":[{}],\"stop\":false,\"id_slot\":-1,\
         \"tokens_predicted\":{number},\"tokens_evaluated\":33}}\n\n",
        300 + number
    )
}

fn nanoseconds_per_event(grammar: &Arc<Grammar>, pieces: &[String]) -> f64 {
    let mut batch = TokenBatch::default();
    let start = Instant::now();
    for _ in 0..STREAMS {
        let mut reader = StreamReader::new(Arc::clone(grammar));
        for piece in pieces {
            batch.clear();
            let state = reader.push(piece.as_bytes(), &mut batch);
            assert_eq!(state, StreamState::Open);
        }
        assert_eq!(reader.tokens_out(), EVENTS);
    }
    start.elapsed().as_nanos() as f64 / f64::from(STREAMS * EVENTS)
}
