//! Reads one attempt's response body after its grammar: bytes in, token events out, and how it ended.
//!
//! However the body is cut into pieces, the same text, cuts, ids and end come out. A reader settles once: at the
//! first end or fault. What comes after that is ignored.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::answer::Answer;
pub use crate::fault::{EngineFault, FaultClass, classify_response};
use crate::fault::{error_in, string};
use crate::framing::Framer;
use crate::grammar::{Choice, EndRule, Grammar, Scalar, Settles};
use crate::scan::{Kind, Span};
use crate::vocabulary::{Channel, FinishReason, Usage};

/// Token events of one or more pieces of a body. Reused by the caller, who clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// The text of all events, one after the other.
    pub text: String,
    /// Where each event ends.
    pub cuts: Vec<Cut>,
    /// Token ids in order, as far as the engine gives them.
    pub ids: Vec<u32>,
}

impl TokenBatch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cuts.clear();
        self.ids.clear();
    }
}

/// The end of one token event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Byte offset in [`TokenBatch::text`] at which the event ends.
    pub end: u32,
    /// The channel its text belongs to.
    pub channel: Channel,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// More is to come.
    Open,
    /// The engine ended its answer and said so.
    Ended(EngineEnd),
    /// The answer is not complete.
    Failed(EngineFault),
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEnd {
    /// Why the engine stopped. `Stop` when it does not say.
    pub finish_reason: FinishReason,
    /// Tokens used.
    pub usage: Usage,
    /// All token ids; only if there are exactly as many as tokens.
    pub ids: Option<Vec<u32>>,
}

/// Reads one response body.
#[derive(Debug)]
pub struct StreamReader {
    framer: Framer,
    parser: EventParser,
    answer: Answer,
}

impl StreamReader {
    /// A reader for one attempt.
    #[must_use]
    pub fn new(grammar: Arc<Grammar>) -> Self {
        Self {
            framer: Framer::new(grammar.framing, grammar.max_event_bytes),
            parser: EventParser {
                grammar,
                found: Vec::new(),
            },
            answer: Answer::default(),
        }
    }

    /// Takes the next bytes of the body and appends the token events that they complete to `batch`.
    pub fn push(&mut self, bytes: &[u8], batch: &mut TokenBatch) -> StreamState {
        if self.answer.settled.is_none() {
            let (parser, answer) = (&mut self.parser, &mut self.answer);
            let fed = self.framer.feed(bytes, |event| {
                parser.event(event, answer, batch);
                match answer.settled {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
            if fed.is_err() {
                let limit = parser.grammar.max_event_bytes;
                answer.fail_transport(&format!(
                    "the engine sent an event of more than `max_event_bytes`: {limit}"
                ));
            }
        }
        self.state()
    }

    /// The body came to a clean end. Never `Open`.
    pub fn finish(&mut self, batch: &mut TokenBatch) -> StreamState {
        if self.answer.settled.is_none() {
            let rest = self.framer.rest();
            let is_whole = rest.is_empty() || self.parser.is_complete(rest);
            if is_whole && !rest.is_empty() {
                self.parser.event(rest, &mut self.answer, batch);
            }
            self.end_of_body(is_whole, batch);
        }
        self.state()
    }

    /// The connection broke before the body came to an end. Never `Open`; an answer whose end event came is complete
    /// all the same.
    pub fn break_off(&mut self, batch: &mut TokenBatch) -> StreamState {
        self.end_of_body(false, batch);
        self.state()
    }

    /// Output tokens so far: the engine's own count where it gives one, else ids, else events.
    #[must_use]
    pub fn tokens_out(&self) -> u32 {
        self.answer.tokens_out()
    }

    fn state(&self) -> StreamState {
        self.answer.settled.clone().unwrap_or(StreamState::Open)
    }

    fn end_of_body(&mut self, is_whole: bool, batch: &mut TokenBatch) {
        let answer = &mut self.answer;
        if answer.settled.is_some() {
            return;
        }
        if answer.end_seen || is_whole && self.parser.ends_with_body(answer) {
            answer.end(batch);
        } else {
            answer.fail_transport("the engine's stream broke off before the end of the answer");
        }
    }
}

/// Applies events to an answer, after the grammar.
#[derive(Debug)]
struct EventParser {
    grammar: Arc<Grammar>,
    /// Where the values of the current event lie. Reused.
    found: Vec<Span>,
}

impl EventParser {
    fn event(&mut self, event: &[u8], answer: &mut Answer, batch: &mut TokenBatch) {
        if self.is_done(event) {
            return self.done(answer, batch);
        }
        match self.grammar.paths.extract(event, &mut self.found) {
            Ok(()) => Event {
                grammar: &self.grammar,
                bytes: event,
                found: &self.found,
            }
            .apply(answer, batch),
            Err(_) => answer.fail_transport("the engine sent an event that is not JSON"),
        }
    }

    fn is_done(&self, event: &[u8]) -> bool {
        let done = self.grammar.done.as_deref();
        done.is_some_and(|done| done == event.trim_ascii())
    }

    fn done(&self, answer: &mut Answer, batch: &mut TokenBatch) {
        if answer.end_seen || self.ends_with_body(answer) {
            answer.end(batch);
        } else {
            answer.fail_transport("the engine closed the stream without the end of the answer");
        }
    }

    /// Whether an event that the end of the body cut off is all there.
    fn is_complete(&mut self, event: &[u8]) -> bool {
        let is_object = event.trim_ascii_start().starts_with(b"{");
        let mut is_json = || self.grammar.paths.extract(event, &mut self.found).is_ok();
        is_object && is_json() || self.is_done(event)
    }

    /// Without an end marker a body proves something only if it held anything at all.
    fn ends_with_body(&self, answer: &Answer) -> bool {
        answer.began && matches!(self.grammar.end, EndRule::Eof)
    }
}

/// One event with the places of its values.
struct Event<'a> {
    grammar: &'a Grammar,
    bytes: &'a [u8],
    found: &'a [Span],
}

impl Event<'_> {
    fn apply(&self, answer: &mut Answer, batch: &mut TokenBatch) {
        if let Some(fault) = error_in(self.grammar, self.bytes, self.found, None) {
            return answer.fail(fault);
        }
        let index = self.grammar.index.first(self.found);
        if index.is_some_and(|index| index.as_u32(self.bytes) != Some(0)) {
            return;
        }
        answer.began |= self.bytes.trim_ascii_start().starts_with(b"{");
        self.apply_usage(answer);
        self.apply_tokens(answer, batch);
        self.apply_end(answer, batch);
    }

    fn apply_tokens(&self, answer: &mut Answer, batch: &mut TokenBatch) {
        if self.any_is_set(&self.grammar.skip_if) {
            return;
        }
        if !self.any_is_set(&self.grammar.mute_if) {
            // Thinking comes before the answer when one event has both.
            for channel in [Channel::Reasoning, Channel::Text, Channel::ToolCall] {
                let choice = &self.grammar.text[usize::from(channel.number())];
                if let Some(span) = choice.first(self.found) {
                    answer.text(channel, span, self.bytes, batch);
                }
            }
        }
        if let Some(span) = self.grammar.ids.first(self.found) {
            answer.token_ids(span, self.bytes, batch);
        }
        answer.check_ids();
    }

    fn apply_usage(&self, answer: &mut Answer) {
        let number = |choice: &Choice| {
            let mut numbers = choice.all(self.found).map(|span| span.as_u32(self.bytes));
            numbers.find_map(|number| number)
        };
        let usage = &self.grammar.usage;
        answer.count = number(&self.grammar.count).or(answer.count);
        answer.tokens_in = number(&usage.tokens_in).or(answer.tokens_in);
        answer.tokens_out = number(&usage.tokens_out).or(answer.tokens_out);
        answer.tokens_cached = number(&usage.tokens_cached).or(answer.tokens_cached);
    }

    fn apply_end(&self, answer: &mut Answer, batch: &mut TokenBatch) {
        let rule = &self.grammar.reason;
        if let Some(span) = rule.pointers.first(self.found) {
            let reason = string(span, self.bytes);
            answer.finish_reason = rule.map.get(&reason).copied().or(rule.other);
            if answer.finish_reason.is_none() {
                let message =
                    format!("the engine ended its answer with an unknown reason: `{reason}`");
                return answer.fail(EngineFault::new(FaultClass::Engine, message));
            }
        }
        answer.end_seen |= self.is_end();
        if answer.end_seen && self.grammar.settles == Settles::Event {
            answer.end(batch);
        }
    }

    fn is_end(&self) -> bool {
        match &self.grammar.end {
            EndRule::Eof => false,
            EndRule::Present(slot) => self.found[usize::from(*slot)].is_present(),
            EndRule::Equals(slot, value) => self.equals(self.found[usize::from(*slot)], value),
        }
    }

    fn equals(&self, span: Span, value: &Scalar) -> bool {
        match value {
            Scalar::Bool(wanted) => span.kind == if *wanted { Kind::True } else { Kind::False },
            Scalar::Number(wanted) => span.as_u32(self.bytes) == Some(*wanted),
            Scalar::Text(wanted) => span.is_text() && string(span, self.bytes) == *wanted,
        }
    }

    fn any_is_set(&self, choice: &Choice) -> bool {
        choice
            .all(self.found)
            .any(|span| span.is_present() && span.kind != Kind::False)
    }
}
