//! Reads one attempt's response body after its grammar: bytes in, token events out, and how it ended.
//!
//! However the body is cut into pieces, the same text, cuts, ids and end come out. A reader settles once: at the
//! first end or fault. What comes after that is ignored.

use std::ops::ControlFlow;
use std::sync::Arc;

pub use crate::fault::{EngineFault, FaultClass, classify_response};
use crate::fault::{error_in, string};
use crate::framing::Framer;
use crate::grammar::{EndRule, Grammar, Scalar, Settles};
use crate::scan::{Kind, Span, parse_u32};
use crate::text::TextDecoder;
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
    answer: Answer,
}

impl StreamReader {
    /// A reader for one attempt.
    #[must_use]
    pub fn new(grammar: Arc<Grammar>) -> Self {
        Self {
            framer: Framer::new(grammar.framing, grammar.max_event_bytes),
            answer: Answer::new(grammar),
        }
    }

    /// Takes the next bytes of the body and appends the token events that they complete to `batch`.
    pub fn push(&mut self, bytes: &[u8], batch: &mut TokenBatch) -> StreamState {
        if self.answer.settled.is_none() {
            let answer = &mut self.answer;
            let fed = self.framer.feed(bytes, |event| answer.event(event, batch));
            if fed.is_err() {
                let limit = self.answer.grammar.max_event_bytes;
                self.answer.fail_transport(&format!(
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
            let is_cut = !rest.is_empty() && !self.answer.last_event(rest, batch);
            self.answer.end_of_body(is_cut, batch);
        }
        self.state()
    }

    /// The connection broke before the body came to an end. Never `Open`; an answer that needs no more than its end
    /// event is complete all the same.
    pub fn break_off(&mut self, batch: &mut TokenBatch) -> StreamState {
        if self.answer.settled.is_none() {
            self.answer.end_of_body(true, batch);
        }
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
}

/// What is known of the answer so far.
#[derive(Debug)]
struct Answer {
    grammar: Arc<Grammar>,
    /// Where the values of the current event lie. Reused.
    found: Vec<Span>,
    decoder: TextDecoder,
    /// The channel of a half character that the decoder holds.
    holding: Channel,
    ids: TokenIds,
    /// Any JSON event came.
    began: bool,
    text_events: u32,
    count: Option<u32>,
    tokens_in: Option<u32>,
    tokens_out: Option<u32>,
    tokens_cached: Option<u32>,
    finish_reason: Option<FinishReason>,
    /// The end event came; usage may follow.
    end_seen: bool,
    settled: Option<StreamState>,
}

impl Answer {
    fn new(grammar: Arc<Grammar>) -> Self {
        Self {
            grammar,
            found: Vec::new(),
            decoder: TextDecoder::default(),
            holding: Channel::Text,
            ids: TokenIds::default(),
            began: false,
            text_events: 0,
            count: None,
            tokens_in: None,
            tokens_out: None,
            tokens_cached: None,
            finish_reason: None,
            end_seen: false,
            settled: None,
        }
    }

    fn event(&mut self, event: &[u8], batch: &mut TokenBatch) -> ControlFlow<()> {
        let grammar = Arc::clone(&self.grammar);
        if grammar
            .done
            .as_deref()
            .is_some_and(|done| *done == *event.trim_ascii())
        {
            self.done(batch);
        } else {
            let mut found = std::mem::take(&mut self.found);
            match grammar.paths.extract(event, &mut found) {
                Ok(()) => Event {
                    grammar: &grammar,
                    bytes: event,
                    found: &found,
                }
                .apply(self, batch),
                Err(_) => self.fail_transport("the engine sent an event that is not JSON"),
            }
            self.found = found;
        }
        match self.settled {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    /// An event that the end of the body cut off. False: it is not complete.
    fn last_event(&mut self, event: &[u8], batch: &mut TokenBatch) -> bool {
        let is_done = self.grammar.done.as_deref() == Some(event.trim_ascii());
        let is_object = event.trim_ascii_start().starts_with(b"{");
        let is_complete =
            is_done || is_object && self.grammar.paths.extract(event, &mut self.found).is_ok();
        if is_complete {
            _ = self.event(event, batch);
        }
        is_complete
    }

    fn done(&mut self, batch: &mut TokenBatch) {
        if self.end_seen || self.ends_with_body() {
            self.end(batch);
        } else {
            self.fail_transport("the engine closed the stream without the end of the answer");
        }
    }

    fn end_of_body(&mut self, is_cut: bool, batch: &mut TokenBatch) {
        if self.settled.is_some() {
            return;
        }
        if self.end_seen || self.ends_with_body() && !is_cut {
            self.end(batch);
        } else {
            self.fail_transport("the engine's stream broke off before the end of the answer");
        }
    }

    /// Without an end marker a body proves something only if it held anything at all.
    fn ends_with_body(&self) -> bool {
        self.began && matches!(self.grammar.end, EndRule::Eof)
    }

    fn text(&mut self, channel: Channel, span: Span, event: &[u8], batch: &mut TokenBatch) {
        if channel != self.holding || !span.is_text() {
            self.flush(batch);
        }
        let before = batch.text.len();
        match span.kind {
            Kind::Plain => self.decoder.push(span.bytes(event), false, &mut batch.text),
            Kind::Escaped => self.decoder.push(span.bytes(event), true, &mut batch.text),
            Kind::Array | Kind::Object if channel == Channel::ToolCall => {
                compact(span.bytes(event), &mut batch.text);
            }
            _ => return,
        }
        self.holding = channel;
        self.cut(before, channel, batch);
    }

    fn flush(&mut self, batch: &mut TokenBatch) {
        if self.decoder.is_holding() {
            let before = batch.text.len();
            self.decoder.flush(&mut batch.text);
            self.cut(before, self.holding, batch);
        }
    }

    fn cut(&mut self, before: usize, channel: Channel, batch: &mut TokenBatch) {
        if batch.text.len() > before {
            let end = batch.text.len() as u32;
            batch.cuts.push(Cut { end, channel });
            self.text_events = self.text_events.saturating_add(1);
        }
    }

    fn tokens_out(&self) -> u32 {
        let counted = if self.ids.seen > 0 {
            self.ids.seen
        } else {
            self.text_events
        };
        self.tokens_out.or(self.count).unwrap_or(counted)
    }

    fn end(&mut self, batch: &mut TokenBatch) {
        self.flush(batch);
        let tokens_out = self.tokens_out();
        self.settled = Some(StreamState::Ended(EngineEnd {
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Stop),
            usage: Usage {
                tokens_in: self.tokens_in.unwrap_or(0),
                tokens_out,
                tokens_cached: self.tokens_cached,
            },
            ids: self.ids.take_complete(tokens_out),
        }));
    }

    fn fail_transport(&mut self, message: &str) {
        self.fail(EngineFault::new(FaultClass::Transport, message.to_owned()));
    }

    fn fail(&mut self, fault: EngineFault) {
        self.settled = Some(StreamState::Failed(fault));
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
            answer.ids.take(span, self.bytes, batch);
        }
        answer.ids.check(answer.count);
    }

    fn apply_usage(&self, answer: &mut Answer) {
        let number = |choice: &crate::grammar::Choice| {
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

    fn any_is_set(&self, choice: &crate::grammar::Choice) -> bool {
        choice
            .all(self.found)
            .any(|span| span.is_present() && span.kind != Kind::False)
    }
}

/// Appends JSON without the white space between its parts, so that the digest does not depend on a writer's habits.
fn compact(json: &[u8], out: &mut String) {
    let (mut in_string, mut after_backslash) = (false, false);
    let compacted: Vec<u8> = json
        .iter()
        .copied()
        .filter(|byte| {
            in_string ^= *byte == b'"' && !after_backslash;
            after_backslash = in_string && *byte == b'\\' && !after_backslash;
            in_string || !byte.is_ascii_whitespace()
        })
        .collect();
    out.push_str(&String::from_utf8_lossy(&compacted));
}

/// The ids of all tokens, kept as long as none is known to be missing.
#[derive(Debug, Default)]
struct TokenIds {
    all: Vec<u32>,
    seen: u32,
    incomplete: bool,
}

/// More tokens than any context holds: beyond it ids are no longer kept.
const MAX_IDS: usize = 1 << 20;

impl TokenIds {
    fn take(&mut self, span: Span, event: &[u8], batch: &mut TokenBatch) {
        let bytes = span.bytes(event);
        match span.kind {
            Kind::Number => self.one(parse_u32(bytes), batch),
            Kind::Array => {
                let inside = &bytes[1..bytes.len() - 1];
                for element in inside.split(|byte| *byte == b',') {
                    let element = element.trim_ascii();
                    if !element.is_empty() {
                        self.one(parse_u32(element), batch);
                    }
                }
            }
            _ => self.drop_all(),
        }
    }

    fn one(&mut self, id: Option<u32>, batch: &mut TokenBatch) {
        let Some(id) = id else {
            return self.drop_all();
        };
        batch.ids.push(id);
        self.seen = self.seen.saturating_add(1);
        if self.all.len() == MAX_IDS {
            self.drop_all();
        }
        if !self.incomplete {
            self.all.push(id);
        }
    }

    /// The engine counts more tokens than it gave ids: some are missing, and no later event brings them.
    fn check(&mut self, count: Option<u32>) {
        if count.is_some_and(|count| count > self.seen) {
            self.drop_all();
        }
    }

    fn drop_all(&mut self) {
        self.incomplete = true;
        self.all = Vec::new();
    }

    fn take_complete(&mut self, tokens_out: u32) -> Option<Vec<u32>> {
        let is_complete = !self.incomplete && self.seen > 0 && self.seen == tokens_out;
        is_complete.then(|| std::mem::take(&mut self.all))
    }
}
