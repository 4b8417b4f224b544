//! Cuts an engine's response body into events, however the network cut it into pieces.
//!
//! Server-sent events: `data:` with or without a space, several data lines in one event, comments, other fields
//! (all ignored), lines that end in LF, CR or CRLF, a byte order mark. Newline-delimited JSON: one event a line.
//!
//! The SSE standard drops an event that the end of the body cuts off. Engines end bodies sloppily, and the last
//! event is the one that says why the text stopped, so [`Framer::rest`] hands it out; the reader takes it if it is
//! complete JSON. A JSON object that is complete cannot be the beginning of a longer one, so nothing is guessed.

use std::ops::ControlFlow;

use memchr::{memchr, memchr2};
use serde::Deserialize;

/// How events are told apart in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON value a line.
    Ndjson,
}

/// An event or a line is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oversize;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Holds at most one line and one event, each within the limit.
#[derive(Debug)]
pub(crate) struct Framer {
    framing: Framing,
    limit: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data lines of the event so far.
    data: Vec<u8>,
    /// The last byte seen was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line has been seen yet.
    at_start: bool,
}

impl Framer {
    pub(crate) fn new(framing: Framing, limit: usize) -> Self {
        Self {
            framing,
            limit,
            line: Vec::new(),
            data: Vec::new(),
            after_cr: false,
            at_start: true,
        }
    }

    /// Takes the next bytes and gives every event that they complete to `on_event`, until it breaks.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Oversize> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = self.line_end(bytes) else {
                return self.keep(bytes);
            };
            let (line, rest) = bytes.split_at(end);
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = &rest[1..];
            if self.whole_line(line, &mut on_event)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the end of the body cut off: an event, or the beginning of a line that could have become one. Empty if
    /// nothing was cut off.
    pub(crate) fn rest(&mut self) -> &[u8] {
        let line = std::mem::take(&mut self.line);
        let line = self.without_mark(&line);
        if self.framing == Framing::Sse {
            self.add_data(line);
        }
        if self.data.is_empty() && !line.starts_with(b":") {
            self.data.extend_from_slice(line.trim_ascii());
        }
        &self.data
    }

    fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.framing {
            Framing::Sse => memchr2(b'\n', b'\r', bytes),
            Framing::Ndjson => memchr(b'\n', bytes),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Oversize> {
        self.check(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), Oversize> {
        if length > self.limit {
            return Err(Oversize);
        }
        Ok(())
    }

    fn whole_line(
        &mut self,
        end: &[u8],
        on_event: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Oversize> {
        self.check(self.line.len() + end.len())?;
        if self.line.is_empty() {
            return self.take_line(end, on_event);
        }
        self.line.extend_from_slice(end);
        let mut line = std::mem::take(&mut self.line);
        let flow = self.take_line(&line, on_event);
        line.clear();
        self.line = line;
        flow
    }

    fn take_line(
        &mut self,
        line: &[u8],
        on_event: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Oversize> {
        let line = self.without_mark(line);
        match self.framing {
            Framing::Ndjson => {
                let line = line.trim_ascii();
                Ok(if line.is_empty() {
                    ControlFlow::Continue(())
                } else {
                    on_event(line)
                })
            }
            Framing::Sse if line.is_empty() => {
                let flow = if self.data.is_empty() {
                    ControlFlow::Continue(())
                } else {
                    on_event(&self.data)
                };
                self.data.clear();
                Ok(flow)
            }
            Framing::Sse => {
                self.check(self.data.len() + line.len())?;
                self.add_data(line);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if std::mem::take(&mut self.at_start) {
            return line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        line
    }

    /// Adds a line to the event if its field is `data`; comments and other fields carry nothing for us.
    fn add_data(&mut self, line: &[u8]) {
        let Some(value) = line.strip_prefix(b"data") else {
            return;
        };
        let value = match value.strip_prefix(b":") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if value.is_empty() => value,
            None => return,
        };
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{Framer, Framing, Oversize};
    use std::ops::ControlFlow;

    /// The events of a body fed in pieces, and what was left over at its end.
    fn frame(framing: Framing, pieces: &[&str]) -> (Vec<String>, String) {
        let mut framer = Framer::new(framing, 1000);
        let mut events = Vec::new();
        for piece in pieces {
            framer
                .feed(piece.as_bytes(), |event| {
                    events.push(String::from_utf8_lossy(event).into_owned());
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        let rest = String::from_utf8_lossy(framer.rest()).into_owned();
        (events, rest)
    }

    fn sse(body: &str) -> Vec<String> {
        let (events, rest) = frame(Framing::Sse, &[body]);
        assert_eq!(rest, "");
        events
    }

    #[test]
    fn test_data_with_and_without_a_space() {
        assert_eq!(sse("data: a\n\ndata:b\n\ndata:  c\n\n"), ["a", "b", " c"]);
    }

    #[test]
    fn test_comments_and_other_fields_are_ignored() {
        assert_eq!(
            sse(":\n\n: ping\nevent: token\nid: 7\nretry: 5\ndatabase: x\ndata: a\n\n:\n"),
            ["a"]
        );
    }

    #[test]
    fn test_data_lines_of_one_event_are_joined() {
        assert_eq!(sse("data: {\ndata:  }\n\n"), ["{\n }"]);
    }

    #[test]
    fn test_empty_data_is_no_event() {
        assert_eq!(sse("data:\n\ndata\n\n\n\ndata: a\n\n"), ["a"]);
    }

    #[test]
    fn test_every_line_ending() {
        for end in ["\n", "\r", "\r\n"] {
            assert_eq!(
                sse(&format!("data: a{end}{end}:{end}data: b{end}{end}")),
                ["a", "b"]
            );
        }
    }

    #[test]
    fn test_cr_and_lf_in_different_pieces_are_one_line_ending() {
        let (events, _) = frame(
            Framing::Sse,
            &["data: a\r", "\n", "data: b\r", "\n\r", "\n"],
        );
        assert_eq!(events, ["a\nb"]);
    }

    #[test]
    fn test_byte_order_mark_in_pieces() {
        let mut framer = Framer::new(Framing::Sse, 100);
        let mut seen = Vec::new();
        for byte in b"\xef\xbb\xbfdata: a\n\n" {
            framer
                .feed(&[*byte], |event| {
                    seen.extend_from_slice(event);
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        assert_eq!(seen, b"a");
    }

    #[test]
    fn test_the_event_cut_off_by_the_end_is_handed_out() {
        for body in [
            "data: a\n\ndata: {}",
            "data: a\n\ndata: {}\n",
            "data: a\n\ndata: {}\r",
        ] {
            assert_eq!(
                frame(Framing::Sse, &[body]),
                (vec!["a".to_owned()], "{}".to_owned())
            );
        }
        assert_eq!(frame(Framing::Sse, &["data: a\n\n: pi"]).1, "");
        assert_eq!(frame(Framing::Sse, &["data: a\n\nda"]).1, "da");
        assert_eq!(
            frame(Framing::Ndjson, &["1\n{}"]),
            (vec!["1".to_owned()], "{}".to_owned())
        );
    }

    #[test]
    fn test_ndjson_lines() {
        assert_eq!(
            frame(Framing::Ndjson, &["{\"a\":", "1}\r\n\n  \n2", "\n"]).0,
            ["{\"a\":1}", "2"]
        );
    }

    #[test]
    fn test_a_break_stops_in_the_middle() {
        let mut framer = Framer::new(Framing::Sse, 100);
        let mut count = 0;
        let fed = framer.feed(b"data: a\n\ndata: b\n\n", |_| {
            count += 1;
            ControlFlow::Break(())
        });
        assert_eq!((fed, count), (Ok(()), 1));
    }

    #[test]
    fn test_the_limit_holds_in_one_piece_and_in_many() {
        let body = format!("data: ok\n\ndata: {}\n\n", "x".repeat(100));
        for size in [1, 7, 1000] {
            for (framing, limit, fits) in [
                (Framing::Sse, 50, false),
                (Framing::Sse, 106, true),
                (Framing::Ndjson, 50, false),
            ] {
                let mut framer = Framer::new(framing, limit);
                let fed = body
                    .as_bytes()
                    .chunks(size)
                    .try_for_each(|piece| framer.feed(piece, |_| ControlFlow::Continue(())));
                assert_eq!(
                    fed,
                    if fits { Ok(()) } else { Err(Oversize) },
                    "{framing:?} {limit} {size}"
                );
            }
        }
        let many_lines = "data: xxxxxxxxx\n".repeat(20);
        let fed = Framer::new(Framing::Sse, 50)
            .feed(many_lines.as_bytes(), |_| ControlFlow::Continue(()));
        assert_eq!(fed, Err(Oversize));
    }
}
