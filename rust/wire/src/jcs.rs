//! The JSON Canonicalization Scheme (RFC 8785): one byte string per JSON value.
//!
//! Owns the canonical form that every digest and signature is taken over, and the string escape that the stream
//! encoder shares with it. Numbers are written as ECMAScript writes doubles; keys are ordered by UTF-16 code units.
//! Numbers beyond 2^53 are not refused here but where bodies are parsed (`request`).

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// Integers up to here are the same number in every JSON reader.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The canonical bytes of a value.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value);
    out
}

/// The canonical bytes of an object.
pub fn map_to_vec(map: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_map(&mut out, map);
    out
}

/// Appends the canonical form of a value.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Value::Object(map) => write_map(out, map),
    }
}

/// Appends the canonical form of an object.
pub fn write_map(out: &mut Vec<u8>, map: &Map<String, Value>) {
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    // The map iterates in byte order, which is UTF-16 order but for rare keys: the sort is one pass of comparisons.
    entries.sort_by(|a, b| utf16_order(a.0.as_bytes(), b.0.as_bytes()));
    out.push(b'{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

/// Appends a JSON string with its quotes, escaped the shortest way.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        write_escape(out, byte);
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(integer) = number
        .as_i64()
        .filter(|i| i.unsigned_abs() <= MAX_SAFE_INTEGER)
    {
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
    } else if let Some(double) = number.as_f64() {
        out.extend_from_slice(ryu_js::Buffer::new().format(double).as_bytes());
    }
}

/// Compares two UTF-8 strings by UTF-16 code units without decoding them.
///
/// The two orders differ only where a supplementary character (lead byte F0..F4, a surrogate pair in UTF-16) meets one
/// of U+E000..U+FFFF (lead byte EE or EF), which sorts above all surrogates.
fn utf16_order(a: &[u8], b: &[u8]) -> Ordering {
    fn rank(byte: u8) -> u8 {
        if byte == 0xEE || byte == 0xEF {
            byte + 0x10
        } else {
            byte
        }
    }
    match a.iter().zip(b).find(|(x, y)| x != y) {
        Some((&x, &y)) => rank(x).cmp(&rank(y)),
        None => a.len().cmp(&b.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        String::from_utf8(to_vec(value)).unwrap()
    }

    #[test]
    fn test_the_sample_of_the_rfc_comes_out_as_published() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1E30, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001],
            "string": "\u{20ac}$\u{000F}\u{000a}A'\u{0042}\u{0022}\u{005c}\\\"/",
            "literals": [null, true, false]
        });
        assert_eq!(
            canonical(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn test_keys_are_ordered_by_utf16_units() {
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        assert_eq!(
            canonical(&value),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn test_numbers_are_written_as_ecmascript_writes_them() {
        for (value, text) in [
            (json!(1.0), "1"),
            (json!(-0.0), "0"),
            (json!(1e21), "1e+21"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e-7), "1e-7"),
            (json!(0.000_001), "0.000001"),
            (json!(9_007_199_254_740_991_u64), "9007199254740991"),
            (json!(u64::MAX), "18446744073709552000"),
            (json!(5e-324), "5e-324"),
        ] {
            assert_eq!(canonical(&value), text);
        }
    }

    #[test]
    fn test_long_numbers_are_read_to_the_nearest_double() {
        // Holds only with serde_json's `float_roundtrip`; without it R would depend on who parsed the body.
        for text in [
            "-61551846078061404000",
            "0.30000000000000004",
            "9007199254740991.5e-3",
        ] {
            let read: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read.as_f64(), text.parse().ok(), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            any::<i32>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(Value::from),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn test_the_canonical_form_of_the_canonical_form_is_itself(value in any_json()) {
            let once = to_vec(&value);
            let read: Value = serde_json::from_slice(&once).unwrap();
            prop_assert_eq!(to_vec(&read), once);
        }

        #[test]
        fn test_the_order_of_keys_does_not_matter(entries in prop::collection::btree_map(any::<String>(), any::<i32>(), 0..8)) {
            let forward: String = entries.iter().map(|(k, v)| format!("{}:{v},", json!(k))).collect();
            let backward: String = entries.iter().rev().map(|(k, v)| format!("{}:{v},", json!(k))).collect();
            let parse = |list: &str| -> Value { serde_json::from_str(&format!("{{{}}}", list.trim_end_matches(','))).unwrap() };
            prop_assert_eq!(to_vec(&parse(&forward)), to_vec(&parse(&backward)));
        }

        #[test]
        fn test_the_key_order_equals_that_of_encoded_utf16(a in any::<String>(), b in any::<String>()) {
            let units = |s: &str| s.encode_utf16().collect::<Vec<u16>>();
            prop_assert_eq!(utf16_order(a.as_bytes(), b.as_bytes()), units(&a).cmp(&units(&b)));
        }

        #[test]
        fn test_strings_come_back_through_a_json_parser(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
