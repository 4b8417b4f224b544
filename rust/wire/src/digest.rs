//! Request digests, running output digests and event ids.
//!
//! R = sha256(JCS(effective request)); D(k) = sha256(R ‖ first k output bytes), R as its 32 raw bytes. Output bytes are
//! the UTF-8 of the text in order; a switch of channel is FF and the channel's number, and both bytes count in k. A
//! transcript starts on channel 0 (text). The digests do not depend on how an engine cuts its stream.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::jcs;

/// R: what was asked for, as 32 bytes. `effective` is `TaskRequest::effective`.
pub fn request_digest(effective: &Map<String, Value>) -> [u8; 32] {
    Sha256::digest(jcs::map_to_vec(effective)).into()
}

/// The output bytes that mark a switch to a channel. FF never occurs in UTF-8.
pub const fn channel_switch(channel: u8) -> [u8; 2] {
    [0xFF, channel]
}

/// D(k) of a growing transcript: one running hash that is cloned to be read.
#[derive(Clone)]
pub struct RunningDigest {
    hash: Sha256,
    k: u64,
}

impl RunningDigest {
    /// D(0) of a request.
    pub fn new(request_digest: &[u8; 32]) -> Self {
        Self {
            hash: Sha256::new_with_prefix(request_digest),
            k: 0,
        }
    }

    /// Takes the next output bytes, switch bytes included.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.k += bytes.len() as u64;
    }

    /// How many output bytes were taken.
    pub fn k(&self) -> u64 {
        self.k
    }

    /// D(k) now.
    pub fn read(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// The id of the event that ends at this byte.
    pub fn event_id(&self, end: bool) -> EventId {
        EventId::new(self.k, &self.read(), end)
    }
}

/// `<k>-<first 16 hex of D(k)>`, and `-end` for the terminal: what `Last-Event-ID` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// Output bytes up to and including this event.
    pub k: u64,
    /// The first eight bytes of D(k), big-endian.
    pub hex16: u64,
    /// Whether it names the terminal event.
    pub end: bool,
}

impl EventId {
    /// The id of the event that ends at byte `k`, whose digest is `digest`.
    pub fn new(k: u64, digest: &[u8; 32], end: bool) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        Self {
            k,
            hex16: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            end,
        }
    }

    /// Appends the text form.
    pub fn write(&self, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        out.extend_from_slice(itoa::Buffer::new().format(self.k).as_bytes());
        out.push(b'-');
        for nibble in (0..16).rev() {
            out.push(HEX[((self.hex16 >> (4 * nibble)) & 15) as usize]);
        }
        if self.end {
            out.extend_from_slice(b"-end");
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{:016x}{}",
            self.k,
            self.hex16,
            if self.end { "-end" } else { "" }
        )
    }
}

/// A text that is no event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event id looks like `42-0123456789abcdef` or `42-0123456789abcdef-end`; send the last `id:` of the stream back unchanged"
)]
pub struct EventIdError;

impl FromStr for EventId {
    type Err = EventIdError;

    /// Reads exactly what `Display` writes: one id has one spelling.
    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let (body, end) = text
            .strip_suffix("-end")
            .map_or((text, false), |body| (body, true));
        let (k, hex16) = body.split_once('-').ok_or(EventIdError)?;
        let leading_zero = k.len() > 1 && k.starts_with('0');
        if k.is_empty() || leading_zero || !k.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EventIdError);
        }
        if hex16.len() != 16
            || !hex16
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(EventIdError);
        }
        let k = k.parse().map_err(|_| EventIdError)?;
        let hex16 = u64::from_str_radix(hex16, 16).map_err(|_| EventIdError)?;
        Ok(Self { k, hex16, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn test_the_digest_of_nothing_is_the_hash_of_the_request_digest() {
        let digest = RunningDigest::new(&[7; 32]);
        assert_eq!(digest.k(), 0);
        assert_eq!(digest.read(), <[u8; 32]>::from(Sha256::digest([7; 32])));
    }

    #[test]
    fn test_a_channel_switch_counts_two_bytes() {
        let mut digest = RunningDigest::new(&[0; 32]);
        digest.update(&channel_switch(1));
        digest.update(b"hm");
        assert_eq!(digest.k(), 4);
        let mut whole = [0; 36].to_vec();
        whole[32..].copy_from_slice(&[0xFF, 1, b'h', b'm']);
        assert_eq!(digest.read(), <[u8; 32]>::from(Sha256::digest(whole)));
    }

    #[test]
    fn test_texts_that_are_no_event_id_are_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "x-0123456789abcdef",
            "01-0123456789abcdef",
            "+1-0123456789abcdef",
            "1-0123456789ABCDEF",
            "1-0123456789abcde",
            "1-0123456789abcdef0",
            "1-0123456789abcdef-END",
            "1-0123456789abcdef-end-end",
            "-1-0123456789abcdef",
            " 1-0123456789abcdef",
            "18446744073709551616-0123456789abcdef",
            "1-+123456789abcdef",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(EventIdError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn test_chunking_does_not_change_the_digest(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..40) {
            let mut whole = RunningDigest::new(&[1; 32]);
            whole.update(&bytes);
            let mut parts = RunningDigest::new(&[1; 32]);
            for part in bytes.chunks(size) {
                parts.update(part);
                let _ = parts.read();
            }
            prop_assert_eq!(whole.read(), parts.read());
            prop_assert_eq!(whole.event_id(true), parts.event_id(true));
        }

        #[test]
        fn test_an_event_id_comes_back_from_its_text(k: u64, hex16: u64, end: bool) {
            let id = EventId { k, hex16, end };
            let mut out = Vec::new();
            id.write(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), id.to_string());
            prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        }

        #[test]
        fn test_reading_an_event_id_never_panics(text in any::<String>()) {
            if let Ok(id) = text.parse::<EventId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
