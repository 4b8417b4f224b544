//! Task and session ids, and the seed that follows from a task id.

use sha2::{Digest, Sha256};

/// Reads a hyphenated uuid, in any case. Other spellings of a uuid are not taken: one id has one shape.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut digits = [0u8; 32];
    let mut filled = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if matches!(index, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        digits[filled] = byte;
        filled += 1;
    }
    let mut id = [0; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    Some(id)
}

/// Writes a uuid in lower case with hyphens.
pub fn format_uuid(id: &[u8; 16]) -> String {
    let hex = hex::encode(id);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// The seed of a task that names none: the first four bytes, big-endian, of the hash of its id's text, below 2^31.
pub fn default_seed(task_id: &[u8; 16]) -> u32 {
    let hash = Sha256::digest(format_uuid(task_id));
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn test_any_case_is_read_and_lower_case_is_written() {
        let id = parse_uuid("3F0A2F6E-6B1A-4C55-9f60-2d1b7a4f0c11").unwrap();
        assert_eq!(format_uuid(&id), "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11");
    }

    #[test]
    fn test_other_spellings_are_no_uuid() {
        for text in [
            "",
            "3f0a2f6e6b1a4c559f602d1b7a4f0c11",
            "{3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11}",
            "3f0a2f6e-6b1a-4c55-9f602-d1b7a4f0c11",
            "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c1g",
            "3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c1\u{e9}",
        ] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    // req: ORCH-4012
    #[test]
    fn test_the_default_seed_is_the_one_of_the_contract() {
        // sha256("00000000-0000-0000-0000-000000000000") begins 12b9377c.
        assert_eq!(default_seed(&[0; 16]), 0x12b9_377c);
    }

    proptest! {
        #[test]
        fn test_a_uuid_comes_back_from_its_text(id: [u8; 16]) {
            prop_assert_eq!(parse_uuid(&format_uuid(&id)), Some(id));
            prop_assert!(default_seed(&id) < 1 << 31);
        }
    }
}
