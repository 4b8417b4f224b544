//! The text of tokens: JSON escapes undone, half characters held back until the other half comes.
//!
//! An engine may end an event inside a character: raw, after the first bytes of a UTF-8 sequence, or escaped, after
//! the first of two surrogates. The half is kept and completed by the next event's text. A half that nothing
//! completes becomes U+FFFD, so what goes on is always valid UTF-8.

const REPLACEMENT: &str = "\u{fffd}";

/// Decodes the strings of one answer, in order.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    held: Half,
    /// Reused for every string that cannot be taken as it is.
    scratch: Vec<u8>,
}

/// The first half of a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Half {
    #[default]
    None,
    /// A leading surrogate.
    Surrogate(u16),
    /// One to three bytes of a sequence, and how many.
    Bytes([u8; 3], u8),
}

impl TextDecoder {
    pub(crate) fn is_holding(&self) -> bool {
        self.held != Half::None
    }

    /// Appends the text of a JSON string (what is between its quotes, checked before) to `out`.
    pub(crate) fn push(&mut self, raw: &[u8], escaped: bool, out: &mut String) {
        if !escaped
            && !self.is_holding()
            && let Ok(text) = std::str::from_utf8(raw)
        {
            out.push_str(text);
            return;
        }
        if !raw.is_empty() {
            self.push_slowly(raw, out);
        }
    }

    /// Nothing more comes: a half that is held becomes U+FFFD.
    pub(crate) fn flush(&mut self, out: &mut String) {
        if std::mem::take(&mut self.held) != Half::None {
            out.push_str(REPLACEMENT);
        }
    }

    fn push_slowly(&mut self, raw: &[u8], out: &mut String) {
        self.scratch.clear();
        let leading = match std::mem::take(&mut self.held) {
            Half::None => None,
            Half::Surrogate(unit) => Some(unit),
            Half::Bytes(bytes, length) => {
                self.scratch
                    .extend_from_slice(&bytes[..usize::from(length)]);
                None
            }
        };
        let leading = unescape(raw, leading, &mut self.scratch);
        let half = push_valid(&self.scratch, out);
        self.held = match leading {
            Some(unit) => {
                // The bytes before a surrogate can no longer be completed.
                if half != Half::None {
                    out.push_str(REPLACEMENT);
                }
                Half::Surrogate(unit)
            }
            None => half,
        };
    }
}

/// Undoes the escapes of `raw`. `leading` is a surrogate that waits for its second half; so is what is returned.
fn unescape(raw: &[u8], mut leading: Option<u16>, out: &mut Vec<u8>) -> Option<u16> {
    let mut rest = raw;
    while !rest.is_empty() {
        let run = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        if run > 0 {
            give_up(&mut leading, out);
            out.extend_from_slice(&rest[..run]);
            rest = &rest[run..];
            continue;
        }
        let (kind, after) = (rest.get(1).copied(), rest.get(2..).unwrap_or_default());
        if kind == Some(b'u') {
            leading = code_unit(hex(after), leading, out);
            rest = after.get(4..).unwrap_or_default();
        } else {
            give_up(&mut leading, out);
            out.push(simple_escape(kind.unwrap_or(b'\\')));
            rest = after;
        }
    }
    leading
}

/// A leading surrogate was not followed by its second half.
fn give_up(leading: &mut Option<u16>, out: &mut Vec<u8>) {
    if leading.take().is_some() {
        out.extend_from_slice(REPLACEMENT.as_bytes());
    }
}

/// Adds one UTF-16 code unit; returns it if it is the first half of a character.
fn code_unit(unit: u16, leading: Option<u16>, out: &mut Vec<u8>) -> Option<u16> {
    match (leading, unit) {
        (Some(first), 0xdc00..0xe000) => {
            let code = 0x1_0000 + (u32::from(first - 0xd800) << 10) + u32::from(unit - 0xdc00);
            push_char(code, out);
            return None;
        }
        (Some(_), _) => out.extend_from_slice(REPLACEMENT.as_bytes()),
        (None, _) => {}
    }
    if (0xd800..0xdc00).contains(&unit) {
        return Some(unit);
    }
    push_char(u32::from(unit), out);
    None
}

/// A second half that stands alone is no character.
fn push_char(code: u32, out: &mut Vec<u8>) {
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn hex(digits: &[u8]) -> u16 {
    digits.iter().take(4).fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16).unwrap_or(0);
        (unit << 4) | value as u16
    })
}

fn simple_escape(kind: u8) -> u8 {
    match kind {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}

/// Appends what is valid, U+FFFD for what can never be, and returns the half character at the end.
fn push_valid(mut bytes: &[u8], out: &mut String) -> Half {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return Half::None;
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        out.push_str(std::str::from_utf8(valid).unwrap_or_default());
        let Some(wrong) = error.error_len() else {
            let mut half = [0; 3];
            half[..rest.len()].copy_from_slice(rest);
            return Half::Bytes(half, rest.len() as u8);
        };
        out.push_str(REPLACEMENT);
        bytes = &rest[wrong..];
    }
}

#[cfg(test)]
mod tests {
    use super::TextDecoder;
    use proptest::prelude::*;

    /// The text of one answer whose events hold these raw strings, and whether a half is held at its end.
    fn decode(strings: &[&[u8]]) -> (String, bool) {
        let mut decoder = TextDecoder::default();
        let mut out = String::new();
        for raw in strings {
            decoder.push(raw, raw.contains(&b'\\'), &mut out);
        }
        (out, decoder.is_holding())
    }

    fn whole(strings: &[&[u8]]) -> String {
        let (text, holding) = decode(strings);
        assert!(!holding);
        text
    }

    #[test]
    fn test_escapes_are_undone() {
        assert_eq!(
            whole(&[br#"a\"\\\/\b\f\n\r\tz"#]),
            "a\"\\/\u{8}\u{c}\n\r\tz"
        );
        assert_eq!(whole(&[br"\u00e9\u20AC\ud83d\ude00"]), "é€😀");
    }

    #[test]
    fn test_halves_are_completed_by_the_next_string() {
        assert_eq!(whole(&[b"a\xc3", b"\xa9b"]), "aéb");
        assert_eq!(whole(&[b"\xf0", b"\x9f", b"\x98", b"\x80"]), "😀");
        assert_eq!(whole(&[br"\ud83d", br"\ude00!"]), "😀!");
        assert_eq!(whole(&[b"\xc3", b"", b"\xa9"]), "é");
    }

    #[test]
    fn test_a_half_that_nothing_completes_is_replaced() {
        for (strings, text) in [
            (vec![b"\xc3".as_slice(), b"a"], "\u{fffd}a"),
            (vec![br"\ud83d".as_slice(), b"a"], "\u{fffd}a"),
            (vec![br"\ud83d\ud83d\ude00".as_slice()], "\u{fffd}😀"),
            (vec![br"\ude00".as_slice()], "\u{fffd}"),
            (vec![b"\xff\xa9".as_slice()], "\u{fffd}\u{fffd}"),
            (vec![br"\ud83d\n".as_slice()], "\u{fffd}\n"),
            (vec![b"\xc3\\ud83d".as_slice(), br"\ude00"], "\u{fffd}😀"),
            (vec![br"\ud83d".as_slice(), b"\xc3", b"\xa9"], "\u{fffd}é"),
        ] {
            assert_eq!(whole(&strings), text);
        }
    }

    #[test]
    fn test_a_half_at_the_end_is_held_and_flushed_once() {
        let mut decoder = TextDecoder::default();
        let mut out = String::new();
        decoder.push(b"ok\xe2\x82", false, &mut out);
        assert_eq!((out.as_str(), decoder.is_holding()), ("ok", true));
        decoder.flush(&mut out);
        decoder.flush(&mut out);
        assert_eq!((out.as_str(), decoder.is_holding()), ("ok\u{fffd}", false));
    }

    proptest! {
        #[test]
        fn test_any_text_survives_any_cut(
            text in r"[^\\]{0,40}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)
        ) {
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&pieces), (text.clone(), false));
        }

        #[test]
        fn test_escapes_decode_as_serde_json_does(text in any::<String>()) {
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(decode(&[units.as_bytes()]), (text.clone(), false));
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(decode(&[&json.as_bytes()[1..json.len() - 1]]), (text, false));
        }

        #[test]
        fn test_random_bytes_never_panic(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..6)) {
            let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
            let _ = decode(&strings);
        }
    }
}
