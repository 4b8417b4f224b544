//! What is known of one engine's answer so far: text, ids, counts, and how it ended.
//!
//! Nothing here knows a grammar; [`crate::reader`] finds the values and says what they are.

use crate::fault::{EngineFault, FaultClass};
use crate::reader::{Cut, EngineEnd, StreamState, TokenBatch};
use crate::scan::{Kind, Span, parse_u32};
use crate::text::TextDecoder;
use crate::vocabulary::{Channel, FinishReason, Usage};

/// What is known of the answer so far.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    decoder: TextDecoder,
    /// The channel of a half character that the decoder holds.
    holding: Channel,
    ids: TokenIds,
    text_events: u32,
    /// An event of this answer came.
    pub began: bool,
    /// The engine's running count of output tokens.
    pub count: Option<u32>,
    pub tokens_in: Option<u32>,
    pub tokens_out: Option<u32>,
    pub tokens_cached: Option<u32>,
    pub finish_reason: Option<FinishReason>,
    /// The end event came; usage may follow.
    pub end_seen: bool,
    /// Set once: how the attempt ended.
    pub settled: Option<StreamState>,
}

impl Answer {
    /// Adds the token text that lies at `span`.
    pub(crate) fn text(
        &mut self,
        channel: Channel,
        span: Span,
        event: &[u8],
        batch: &mut TokenBatch,
    ) {
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

    /// Adds the token ids that lie at `span`.
    pub(crate) fn token_ids(&mut self, span: Span, event: &[u8], batch: &mut TokenBatch) {
        self.ids.take(span, event, batch);
    }

    /// Gives up on a list of ids that is shorter than the engine's count: no later event brings the missing ones.
    pub(crate) fn check_ids(&mut self) {
        if self.count.is_some_and(|count| count > self.ids.seen) {
            self.ids.drop_all();
        }
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

    /// The best count of output tokens so far.
    pub(crate) fn tokens_out(&self) -> u32 {
        let counted = if self.ids.seen > 0 {
            self.ids.seen
        } else {
            self.text_events
        };
        self.tokens_out.or(self.count).unwrap_or(counted)
    }

    /// The answer is complete.
    pub(crate) fn end(&mut self, batch: &mut TokenBatch) {
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

    pub(crate) fn fail_transport(&mut self, message: &str) {
        self.fail(EngineFault::new(FaultClass::Transport, message.to_owned()));
    }

    pub(crate) fn fail(&mut self, fault: EngineFault) {
        self.settled = Some(StreamState::Failed(fault));
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

    fn drop_all(&mut self) {
        self.incomplete = true;
        self.all = Vec::new();
    }

    fn take_complete(&mut self, tokens_out: u32) -> Option<Vec<u32>> {
        let is_complete = !self.incomplete && self.seen > 0 && self.seen == tokens_out;
        is_complete.then(|| std::mem::take(&mut self.all))
    }
}
