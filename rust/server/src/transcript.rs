//! A task's recorded stream: output bytes, where each token event ends, the running digest, the terminal.
//!
//! One writer (the attempt that runs) appends; any number of readers follow with a cursor of their own and
//! render what they have not seen yet. Nothing is buffered per reader, so a slow one costs nothing but its
//! cursor, and every reader gets in one write whatever has arrived since its last.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

use orchqueue_wire::digest::{EventId, RunningDigest};
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
            if state.terminal.is_some() {
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

    /// Ends the stream. False when it had ended before: the first terminal stands. `terminal` is called under
    /// the lock with the final length and digest, so that no token can slip in between.
    pub fn end(&self, terminal: impl FnOnce(u64, [u8; 32]) -> Terminal) -> bool {
        let wakers = {
            let mut state = self.state.lock();
            if state.terminal.is_some() {
                return false;
            }
            state.terminal = Some(terminal(state.digest.k(), state.digest.read()));
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
            return Err(if ended {
                ResumeError::Mismatch
            } else {
                ResumeError::NotYet
            });
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
mod tests {
    use super::*;
    use orchqueue_wire::reader::Cut;

    fn batch(pieces: &[(&str, Channel)]) -> TokenBatch {
        let mut batch = TokenBatch::default();
        for (text, channel) in pieces {
            batch.text.push_str(text);
            batch.cuts.push(Cut {
                end: u32::try_from(batch.text.len()).unwrap(),
                channel: *channel,
            });
        }
        batch
    }

    fn ended() -> Terminal {
        Terminal::End(Arc::new(serde_json::json!({})))
    }

    fn id_at(pieces: &[(&str, Channel)]) -> EventId {
        let t = Transcript::new([7; 32]);
        t.append(&mut Place::default(), &batch(pieces));
        let state = t.state.lock();
        EventId {
            k: state.digest.k(),
            hex16: first8(&state.digest.read()),
            end: false,
        }
    }

    #[test]
    fn nothing_comes_after_the_terminal() {
        let t = Transcript::new([7; 32]);
        assert_eq!(
            t.append(&mut Place::default(), &batch(&[("a", Channel::Text)])),
            Appended::Taken
        );
        assert!(t.end(|k, _| {
            assert_eq!(k, 1);
            ended()
        }));
        assert_eq!(
            t.append(&mut Place::default(), &batch(&[("b", Channel::Text)])),
            Appended::Ended
        );
        assert!(!t.end(|_, _| ended()));
        assert_eq!(t.segments(), [(Channel::Text, "a".to_owned())]);
    }

    #[test]
    fn a_channel_switch_counts_two_output_bytes() {
        let t = Transcript::new([7; 32]);
        t.append(
            &mut Place::default(),
            &batch(&[("why", Channel::Reasoning), ("ok", Channel::Text)]),
        );
        assert_eq!(t.k(), 2 + 3 + 2 + 2);
    }

    #[test]
    fn every_place_of_the_output_can_be_resumed_and_no_other_digest_can() {
        let t = Transcript::new([7; 32]);
        t.append(
            &mut Place::default(),
            &batch(&[
                ("abc", Channel::Text),
                ("dé", Channel::Text),
                ("f", Channel::Reasoning),
            ]),
        );
        for (seen, place) in [
            ("", (0, 0)),
            ("a", (0, 1)),
            ("abc", (1, 0)),
            ("abcd", (1, 1)),
            ("abcdé", (2, 0)),
        ] {
            let id = id_at(&[(seen, Channel::Text)]);
            assert_eq!(
                t.locate(id),
                Ok(Cursor {
                    event: place.0,
                    skip: place.1
                }),
                "after {seen:?}"
            );
            let wrong = EventId {
                hex16: id.hex16 ^ 1,
                ..id
            };
            assert_eq!(t.locate(wrong), Err(ResumeError::Mismatch));
        }
        let longer = EventId {
            k: 100,
            hex16: 0,
            end: false,
        };
        assert_eq!(t.locate(longer), Err(ResumeError::NotYet));
        t.end(|_, _| ended());
        assert_eq!(t.locate(longer), Err(ResumeError::Mismatch));
    }

    #[test]
    fn a_place_inside_a_character_is_refused() {
        let t = Transcript::new([7; 32]);
        t.append(&mut Place::default(), &batch(&[("é", Channel::Text)]));
        assert_eq!(
            t.locate(EventId {
                k: 1,
                hex16: 0,
                end: false
            }),
            Err(ResumeError::Mismatch)
        );
    }

    const SENT: [(&str, Channel); 3] = [
        ("why", Channel::Reasoning),
        ("dé", Channel::Text),
        ("f", Channel::Text),
    ];

    /// A transcript in which a first attempt died after `SENT`, and a second attempt that produces `pieces`.
    fn second_attempt(pieces: &[(&str, Channel)]) -> (Transcript, Appended) {
        let t = Transcript::new([7; 32]);
        t.append(&mut Place::default(), &batch(&SENT));
        let mut place = Place::default();
        let mut result = Appended::Taken;
        for piece in pieces {
            result = t.append(&mut place, &batch(std::slice::from_ref(piece)));
            if result != Appended::Taken {
                break;
            }
        }
        (t, result)
    }

    #[test]
    fn a_second_attempt_goes_on_however_its_events_are_cut() {
        let whole = Transcript::new([7; 32]);
        whole.append(&mut Place::default(), &batch(&SENT));
        whole.append(
            &mut Place { text: 7, event: 3 },
            &batch(&[("gh", Channel::Text)]),
        );
        for pieces in [
            vec![
                ("why", Channel::Reasoning),
                ("dé", Channel::Text),
                ("f", Channel::Text),
                ("gh", Channel::Text),
            ],
            vec![("why", Channel::Reasoning), ("défgh", Channel::Text)],
            vec![
                ("w", Channel::Reasoning),
                ("hy", Channel::Reasoning),
                ("d", Channel::Text),
                ("éfg", Channel::Text),
                ("h", Channel::Text),
            ],
        ] {
            let (t, result) = second_attempt(&pieces);
            assert_eq!(result, Appended::Taken);
            assert_eq!(t.segments(), whole.segments());
            assert_eq!(t.k(), whole.k());
        }
    }

    #[test]
    fn the_first_differing_byte_is_named_and_nothing_is_appended() {
        for (pieces, at) in [
            (vec![("wha", Channel::Reasoning)], 2 + 2),
            (vec![("why", Channel::Text)], 2),
            (
                vec![("why", Channel::Reasoning), ("de", Channel::Text)],
                2 + 3 + 2 + 1,
            ),
            (
                vec![("why", Channel::Reasoning), ("déX", Channel::Text)],
                2 + 3 + 2 + 3,
            ),
        ] {
            let (t, result) = second_attempt(&pieces);
            assert_eq!(result, Appended::Diverged { k: at }, "{pieces:?}");
            assert_eq!(t.k(), 2 + 3 + 2 + 4);
        }
    }
}
