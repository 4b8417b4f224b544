//! A scanner over the JSON text of one event: it checks the text and tells where values lie, and copies nothing.
//!
//! Why not a general JSON library here: an engine may send half a character (a lone surrogate, the first bytes of
//! a UTF-8 sequence), which a strict string type refuses and a lossy one destroys; and a reader that runs once per
//! token must not allocate. What is accepted as JSON is the same as elsewhere in the crate, except that strings
//! may hold such halves; a test holds this scanner against `serde_json`.

/// The bytes are not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What lies at a [`Span`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The event has no such value.
    #[default]
    Absent,
    Null,
    False,
    True,
    Number,
    /// A string without escapes: its bytes are its text.
    Plain,
    /// A string with at least one escape.
    Escaped,
    Array,
    Object,
}

/// Where a value lies in the event. For strings: what is between the quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The bytes of the value; empty when it is absent.
    pub(crate) fn bytes(self, event: &[u8]) -> &[u8] {
        event
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// `null` counts as not there.
    pub(crate) fn is_present(self) -> bool {
        !matches!(self.kind, Kind::Absent | Kind::Null)
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Escaped)
    }

    /// The value as a whole number that fits; anything else is `None`.
    pub(crate) fn as_u32(self, event: &[u8]) -> Option<u32> {
        if self.kind == Kind::Number {
            parse_u32(self.bytes(event))
        } else {
            None
        }
    }
}

/// Reads decimal digits; a sign, a fraction, an exponent or too large a number is `None`.
pub(crate) fn parse_u32(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    u32::try_from(number).ok()
}

/// How deep arrays and objects may nest: far more than any engine sends, and small enough for one bit each.
const MAX_DEPTH: u32 = 128;

pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space.
    pub(crate) fn peek(&mut self) -> Result<u8, Malformed> {
        self.skip_space();
        self.bytes.get(self.at).copied().ok_or(Malformed)
    }

    /// Steps over `wanted` if it comes next.
    pub(crate) fn eat(&mut self, wanted: u8) -> Result<bool, Malformed> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        Ok(found)
    }

    pub(crate) fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.eat(wanted)? {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Nothing but white space may follow the value.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// A member's name and its colon.
    pub(crate) fn key(&mut self) -> Result<Span, Malformed> {
        self.expect(b'"')?;
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// Steps over one value of any kind and says where it was.
    pub(crate) fn value(&mut self) -> Result<Span, Malformed> {
        match self.peek()? {
            b'{' | b'[' => self.container(),
            _ => self.scalar(),
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn span(&self, kind: Kind, start: usize) -> Span {
        // An event is far smaller than 4 GiB: the framer's limit sees to it.
        Span {
            kind,
            start: start as u32,
            end: self.at as u32,
        }
    }

    fn scalar(&mut self) -> Result<Span, Malformed> {
        match self.bytes.get(self.at) {
            Some(b'"') => {
                self.at += 1;
                self.string()
            }
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(b't') => self.literal(b"true", Kind::True),
            Some(b'f') => self.literal(b"false", Kind::False),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Result<Span, Malformed> {
        let start = self.at;
        if !self.bytes[start..].starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(self.span(kind, start))
    }

    fn number(&mut self) -> Result<Span, Malformed> {
        let start = self.at;
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.skip_digits(),
            _ => return Err(Malformed),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.span(Kind::Number, start))
    }

    fn skip_digits(&mut self) {
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.skip_digits();
        if self.at > start {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// The rest of a string whose opening quote is behind us.
    fn string(&mut self) -> Result<Span, Malformed> {
        let start = self.at;
        let mut kind = Kind::Plain;
        loop {
            self.at = next_special(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let span = self.span(kind, start);
                    self.at += 1;
                    return Ok(span);
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(Malformed)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Malformed);
                }
                self.at += 6;
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    /// Steps over an array or an object without recursion, so that no input can exhaust the stack.
    fn container(&mut self) -> Result<Span, Malformed> {
        let start = self.at;
        let kind = if self.bytes.get(start) == Some(&b'{') {
            Kind::Object
        } else {
            Kind::Array
        };
        let mut open = OpenContainers::default();
        loop {
            let closed = self.container_value(&mut open)?;
            if closed && self.container_tail(&mut open)? {
                return Ok(self.span(kind, start));
            }
        }
    }

    /// One value inside a container. False: a container was opened and its first value comes next.
    fn container_value(&mut self, open: &mut OpenContainers) -> Result<bool, Malformed> {
        match self.peek()? {
            b'{' => {
                self.at += 1;
                if self.eat(b'}')? {
                    return Ok(true);
                }
                open.push(true)?;
                self.key()?;
                Ok(false)
            }
            b'[' => {
                self.at += 1;
                if self.eat(b']')? {
                    return Ok(true);
                }
                open.push(false)?;
                Ok(false)
            }
            _ => self.scalar().map(|_| true),
        }
    }

    /// What follows a value: a comma (false) or as many closing brackets as are open (true).
    fn container_tail(&mut self, open: &mut OpenContainers) -> Result<bool, Malformed> {
        while open.depth > 0 {
            let byte = self.peek()?;
            self.at += 1;
            match (byte, open.in_object()) {
                (b',', true) => {
                    self.key()?;
                    return Ok(false);
                }
                (b',', false) => return Ok(false),
                (b'}', true) | (b']', false) => open.pop(),
                _ => return Err(Malformed),
            }
        }
        Ok(true)
    }
}

/// The containers that are open: one bit each, set for an object.
#[derive(Default)]
struct OpenContainers {
    objects: u128,
    depth: u32,
}

impl OpenContainers {
    fn push(&mut self, object: bool) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return Err(Malformed);
        }
        self.objects = (self.objects << 1) | u128::from(object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// Index of the next quote, backslash or control character at or after `from`; the length if there is none.
///
/// Looks at eight bytes at a time. The subtraction may flag a byte above a true hit, never one below it, so the
/// lowest flag is exact.
fn next_special(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let block = u64::from_le_bytes(*block);
        let quote = block ^ (ONES * u64::from(b'"'));
        let backslash = block ^ (ONES * u64::from(b'\\'));
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (block.wrapping_sub(ONES * 0x20) & !block);
        let hits = hits & HIGHS;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            return at;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{Kind, Malformed, Scanner, Span, parse_u32};
    use proptest::prelude::*;

    fn scan(text: &[u8]) -> Result<Span, Malformed> {
        let mut scanner = Scanner::new(text);
        let span = scanner.value()?;
        scanner.end()?;
        Ok(span)
    }

    #[test]
    fn test_kinds_and_places_of_values() {
        for (text, kind, value) in [
            ("null", Kind::Null, "null"),
            (" true ", Kind::True, "true"),
            ("\tfalse\n", Kind::False, "false"),
            ("-12.5e+3", Kind::Number, "-12.5e+3"),
            (r#""plain""#, Kind::Plain, "plain"),
            (r#""a\"b\u00e9""#, Kind::Escaped, r#"a\"b\u00e9"#),
            (
                r#" [1,[2,{}],{"a":[]}] "#,
                Kind::Array,
                r#"[1,[2,{}],{"a":[]}]"#,
            ),
            (
                r#"{"a":{"b":[1]},"c":0}"#,
                Kind::Object,
                r#"{"a":{"b":[1]},"c":0}"#,
            ),
        ] {
            let span = scan(text.as_bytes()).unwrap();
            assert_eq!(span.kind, kind, "{text}");
            assert_eq!(span.bytes(text.as_bytes()), value.as_bytes());
        }
    }

    #[test]
    fn test_what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "01",
            "-",
            "1.",
            "1e",
            ".5",
            "+1",
            "[1,]",
            "[1",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "\"open",
            "\"tab\there\"",
            r#""\x""#,
            r#""\u12g4""#,
            "[}",
            "{]",
            "1 2",
            "[1]]",
            "NaN",
        ] {
            assert_eq!(scan(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn test_half_characters_in_strings_are_let_through() {
        assert_eq!(scan(br#""\ud83d""#).unwrap().kind, Kind::Escaped);
        assert_eq!(scan(b"\"\xc3\"").unwrap().kind, Kind::Plain);
    }

    #[test]
    fn test_depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(scan(nested(120).as_bytes()).is_ok());
        assert_eq!(scan(nested(200).as_bytes()), Err(Malformed));
        assert_eq!(scan("[".repeat(1_000_000).as_bytes()), Err(Malformed));
    }

    #[test]
    fn test_whole_numbers_only() {
        assert_eq!(parse_u32(b"0"), Some(0));
        assert_eq!(parse_u32(b"4294967295"), Some(u32::MAX));
        for digits in ["4294967296", "-1", "1.0", "1e3", ""] {
            assert_eq!(parse_u32(digits.as_bytes()), None, "{digits}");
        }
    }

    /// Text made of JSON's own pieces, so that most of it is nearly JSON.
    fn almost_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"b\\n\"",
            "\"é\"",
            "0",
            "-1.5e2",
            "1",
            "true",
            "false",
            "null",
            " ",
            "\"",
            "\\",
            "tru",
            "\u{1}",
            "\"long enough to fill blocks\"",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// JSON as a library writes it.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            ".{0,40}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::btree_map(".{0,10}", inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn test_accepts_exactly_what_serde_json_accepts(text in almost_json()) {
            let library = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(scan(text.as_bytes()).is_ok(), library);
        }

        #[test]
        fn test_written_json_is_accepted_whole(value in json()) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(scan(text.as_bytes()).unwrap().end as usize + usize::from(value.is_string()), text.len());
        }

        #[test]
        fn test_random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes);
        }
    }
}
