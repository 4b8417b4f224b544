//! A task's recorded stream: output bytes, where each token event ends, the running digest, the terminal.
//!
//! One writer (the attempt that runs) appends; any number of readers follow with a cursor of their own and
//! render what they have not seen yet. Nothing is buffered per reader, so a slow one costs nothing but its
//! cursor, and every reader gets in one write whatever has arrived since its last.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use orchqueue_wire::digest::{EventId, RunningDigest};
use orchqueue_wire::errors::Code;
use orchqueue_wire::reader::TokenBatch;
use orchqueue_wire::vocabulary::Channel;

/// Where one token event ends.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Bytes of `text` up to and including this event.
    text_end: u32,
    /// Output bytes (channel switches included) up to and including this event.
    k: u64,
    hex16: u64,
    channel: Channel,
}

/// How the stream ended: exactly one per transcript.
#[derive(Clone, Debug)]
pub enum Terminal {
    /// The `end` event's data.
    End(Arc<serde_json::Value>),
    /// The `error` event's data.
    Error(Arc<orchqueue_wire::errors::ErrorBody>),
}

struct State {
    text: String,
    marks: Vec<Mark>,
    digest: RunningDigest,
    channel: Channel,
    /// Nothing is appended any more.
    closed: bool,
    /// Readers get the terminal only.
    muted: bool,
    terminal: Option<Terminal>,
    wakers: Vec<(u64, Waker)>,
    next_reader: u64,
}

pub struct Transcript {
    request_digest: [u8; 32],
    state: Mutex<State>,
}

/// What a reader has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Token events that were seen whole.
    pub event: usize,
    /// Text bytes of the next event that were seen already (after a resume inside an event).
    pub skip: usize,
}

/// Why a reader can't go on where it says it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeError {
    /// The transcript is not that long yet.
    NotYet,
    /// Its bytes are not ours.
    Mismatch,
    /// The stream had ended and the reader has all of it.
    Complete,
}

/// How far an attempt has come in the transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Text bytes that the attempt has produced.
    text: usize,
    /// The first event that it has not repeated whole.
    event: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    Taken,
    /// The transcript has its terminal: nothing comes after it.
    Ended,
    /// Output byte `k` is not what was sent.
    Diverged {
        k: u64,
    },
}

/// One token event, as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct TokenEvent<'a> {
    pub text: &'a str,
    pub index: u64,
    pub channel: Channel,
    pub id: EventId,
}

impl Transcript {
    #[must_use]
    pub fn new(request_digest: [u8; 32]) -> Self {
        Self {
            request_digest,
            state: Mutex::new(State {
                text: String::new(),
                marks: Vec::new(),
                digest: RunningDigest::new(&request_digest),
                channel: Channel::Text,
                closed: false,
                muted: false,
                terminal: None,
                wakers: Vec::new(),
                next_reader: 0,
            }),
        }
    }

    #[must_use]
    pub fn request_digest(&self) -> &[u8; 32] {
        &self.request_digest
    }

    /// Takes what an attempt produced. What the transcript has already is compared byte for byte and not sent
    /// again, the rest is appended: so a second attempt goes on where the first died (determinism.md, failover).
    pub fn append(&self, place: &mut Place, batch: &TokenBatch) -> Appended {
        let (result, wakers) = {
            let mut state = self.state.lock();
            if state.closed {
                return Appended::Ended;
            }
            let had = state.marks.len();
            let mut start = 0;
            let mut result = Appended::Taken;
            for cut in &batch.cuts {
                let end = cut.end as usize;
                let text = batch.text.get(start..end).unwrap_or("");
                start = end;
                if let Err(k) = state.take(place, text, cut.channel) {
                    result = Appended::Diverged { k };
                    break;
                }
            }
            let grown = state.marks.len() > had;
            (
                result,
                if grown {
                    std::mem::take(&mut state.wakers)
                } else {
                    Vec::new()
                },
            )
        };
        wake(wakers);
        result
    }

    /// Whether an attempt at this place has still to repeat what was sent.
    #[must_use]
    pub fn repeats(&self, place: &Place) -> bool {
        place.text < self.state.lock().text.len()
    }

    /// Takes no further token. Readers wait for the terminal; with `mute` what they have not been sent yet is never
    /// sent (a cancel: after its answer no reader gets another token). False when it was closed before.
    pub fn close(&self, mute: bool) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.closed = true;
        state.muted = mute;
        true
    }

    /// Output bytes and D so far.
    #[must_use]
    pub fn proof(&self) -> (u64, [u8; 32]) {
        let state = self.state.lock();
        (state.digest.k(), state.digest.read())
    }

    /// Ends the stream with its one terminal event. False when it had one: the first stands.
    pub fn end(&self, terminal: Terminal) -> bool {
        let wakers = {
            let mut state = self.state.lock();
            if state.terminal.is_some() {
                return false;
            }
            state.closed = true;
            state.muted |= matches!(&terminal, Terminal::Error(e) if e.code == Code::Canceled);
            state.terminal = Some(terminal);
            state.text.shrink_to_fit();
            state.marks.shrink_to_fit();
            std::mem::take(&mut state.wakers)
        };
        wake(wakers);
        true
    }

    #[must_use]
    pub fn terminal(&self) -> Option<Terminal> {
        self.state.lock().terminal.clone()
    }

    /// Output bytes so far.
    #[must_use]
    pub fn k(&self) -> u64 {
        self.state.lock().digest.k()
    }

    /// The whole output as runs of one channel each, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<(Channel, String)> {
        let state = self.state.lock();
        let mut runs: Vec<(Channel, String)> = Vec::new();
        let mut start = 0;
        for mark in &state.marks {
            let text = &state.text[start..mark.text_end as usize];
            match runs.last_mut() {
                Some((channel, run)) if *channel == mark.channel => run.push_str(text),
                _ => runs.push((mark.channel, text.to_owned())),
            }
            start = mark.text_end as usize;
        }
        runs
    }

    /// A number for a reader, under which its waker is kept.
    pub fn reader(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_reader += 1;
        state.next_reader
    }

    /// Renders every event after `cursor` (about `limit` bytes of text at most) and moves it. When there was
    /// nothing to render, the reader is woken by the next change. Returns the terminal once all is rendered.
    pub fn follow(
        &self,
        cx: &mut Context<'_>,
        reader: u64,
        cursor: &mut Cursor,
        limit: usize,
        mut render: impl FnMut(TokenEvent<'_>),
    ) -> Option<(Terminal, EventId)> {
        let mut state = self.state.lock();
        let mut taken = 0;
        if state.muted {
            *cursor = Cursor {
                event: state.marks.len(),
                skip: 0,
            };
        }
        while let Some(mark) = state.marks.get(cursor.event) {
            if taken > limit {
                return None;
            }
            let start = cursor
                .event
                .checked_sub(1)
                .map_or(0, |i| state.marks[i].text_end as usize);
            let text = &state.text[start + cursor.skip..mark.text_end as usize];
            taken += text.len();
            let id = EventId {
                k: mark.k,
                hex16: mark.hex16,
                end: false,
            };
            render(TokenEvent {
                text,
                index: cursor.event as u64,
                channel: mark.channel,
                id,
            });
            *cursor = Cursor {
                event: cursor.event + 1,
                skip: 0,
            };
        }
        if let Some(terminal) = &state.terminal {
            let id = EventId {
                k: state.digest.k(),
                hex16: first8(&state.digest.read()),
                end: true,
            };
            return Some((terminal.clone(), id));
        }
        if taken == 0 {
            match state.wakers.iter_mut().find(|(id, _)| *id == reader) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => state.wakers.push((reader, cx.waker().clone())),
            }
        }
        None
    }

    /// Wakes `cx` when the transcript changes; the terminal if it is there already.
    pub fn poll_end(&self, cx: &mut Context<'_>, reader: u64) -> Option<Terminal> {
        let mut state = self.state.lock();
        if state.terminal.is_none() {
            match state.wakers.iter_mut().find(|(id, _)| *id == reader) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => state.wakers.push((reader, cx.waker().clone())),
            }
        }
        state.terminal.clone()
    }

    /// The reader is gone.
    pub fn forget(&self, reader: u64) {
        self.state.lock().wakers.retain(|(id, _)| *id != reader);
    }

    /// Finds the place of a reader that has seen the first `id.k` output bytes (determinism.md, resume).
    ///
    /// # Errors
    /// [`ResumeError`]; the id's digest is compared before anything is sent.
    pub fn locate(&self, id: EventId) -> Result<Cursor, ResumeError> {
        let state = self.state.lock();
        let ended = state.terminal.is_some();
        if id.k > state.digest.k() {
            return match &state.terminal {
                None => Err(ResumeError::NotYet),
                // Decoded again after a restart, and ended before it had come that far: its error is what there is to tell.
                Some(Terminal::Error(_)) => Ok(Cursor {
                    event: state.marks.len(),
                    skip: 0,
                }),
                Some(Terminal::End(_)) => Err(ResumeError::Mismatch),
            };
        }
        if id.end {
            let same =
                ended && id.k == state.digest.k() && id.hex16 == first8(&state.digest.read());
            return Err(if same {
                ResumeError::Complete
            } else {
                ResumeError::Mismatch
            });
        }
        let event = state.marks.partition_point(|m| m.k <= id.k);
        let whole = event.checked_sub(1).map(|i| state.marks[i]);
        if whole.map_or(0, |m| m.k) == id.k {
            let known = whole.map_or_else(
                || first8(&RunningDigest::new(&self.request_digest).read()),
                |m| m.hex16,
            );
            return if known == id.hex16 {
                Ok(Cursor { event, skip: 0 })
            } else {
                Err(ResumeError::Mismatch)
            };
        }
        state.inside(&self.request_digest, event, id)
    }
}

impl State {
    /// Compares with what is there, appends what is beyond; the output byte of the first difference if there is one.
    fn take(&mut self, place: &mut Place, text: &str, channel: Channel) -> Result<(), u64> {
        let mut rest = text;
        while place.text < self.text.len() && !rest.is_empty() {
            let Some(mark) = self.marks.get(place.event).copied() else {
                break;
            };
            let known = &self.text.as_bytes()[place.text..mark.text_end as usize];
            if mark.channel != channel {
                return Err(mark.k - known.len() as u64);
            }
            let same = known
                .iter()
                .zip(rest.as_bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let enough = known.len().min(rest.len());
            let Some(beyond) = rest.get(same..).filter(|_| same == enough) else {
                return Err(mark.k - (known.len() - same) as u64);
            };
            place.text += same;
            place.event += usize::from(same == known.len());
            rest = beyond;
        }
        if !rest.is_empty() {
            self.push(rest, channel);
            *place = Place {
                text: self.text.len(),
                event: self.marks.len(),
            };
        }
        Ok(())
    }

    fn push(&mut self, text: &str, channel: Channel) {
        if channel != self.channel {
            self.digest.update(&[0xFF, channel as u8]);
            self.channel = channel;
        }
        self.digest.update(text.as_bytes());
        self.text.push_str(text);
        let text_end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.marks.push(Mark {
            text_end,
            k: self.digest.k(),
            hex16: first8(&self.digest.read()),
            channel,
        });
    }

    /// A reader that was served by an earlier transcript, whose events were cut elsewhere: hash again up to k.
    fn inside(
        &self,
        request_digest: &[u8; 32],
        event: usize,
        id: EventId,
    ) -> Result<Cursor, ResumeError> {
        let mut digest = RunningDigest::new(request_digest);
        let mut channel = Channel::Text;
        let mut start = 0;
        for (index, mark) in self.marks.iter().enumerate().take(event + 1) {
            if mark.channel != channel {
                digest.update(&[0xFF, mark.channel as u8]);
                channel = mark.channel;
            }
            let text = &self.text[start..mark.text_end as usize];
            if index == event {
                let skip = usize::try_from(id.k.saturating_sub(digest.k())).unwrap_or(usize::MAX);
                let seen = text.get(..skip).ok_or(ResumeError::Mismatch)?;
                digest.update(seen.as_bytes());
                let same = digest.k() == id.k && first8(&digest.read()) == id.hex16;
                return if same {
                    Ok(Cursor { event, skip })
                } else {
                    Err(ResumeError::Mismatch)
                };
            }
            digest.update(text.as_bytes());
            start = mark.text_end as usize;
        }
        Err(ResumeError::Mismatch)
    }
}

fn wake(wakers: Vec<(u64, Waker)>) {
    for (_, waker) in wakers {
        waker.wake();
    }
}

/// The first eight bytes, big-endian: the hexadecimal part of an event id.
#[must_use]
pub fn first8(digest: &[u8; 32]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests;
