//! JSON, read strictly.
//!
//! Refuses what readers disagree about: duplicate keys, numbers beyond 2^53, deep nesting, bytes that are not UTF-8. A
//! refusal names the field of the body that it is under.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use super::ParamError;
use crate::jcs::MAX_SAFE_INTEGER;

/// How deep arrays and objects may nest, the body itself included.
pub const MAX_DEPTH: u32 = 64;

/// Reads one value that takes up the whole body.
pub(super) fn read_json(body: &[u8]) -> Result<Value, ParamError> {
    let text = std::str::from_utf8(body).map_err(|fault| {
        ParamError::new(format!(
            "the body is not UTF-8, first bad byte: {}",
            fault.valid_up_to()
        ))
    })?;
    let refusal = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Reader {
        refusal: &refusal,
        depth: 0,
    }
    .deserialize(&mut json)
    .and_then(|value| json.end().map(|()| value));
    read.map_err(|fault| {
        let refused = refusal.take();
        refused.unwrap_or_else(|| ParamError::new(format!("the body is not valid JSON: {fault}")))
    })
}

/// Reads any JSON value and refuses what is ambiguous; the reason goes through `refusal`, since serde's errors are text.
#[derive(Clone, Copy)]
struct Reader<'a> {
    refusal: &'a RefCell<Option<ParamError>>,
    depth: u32,
}

impl Reader<'_> {
    fn refuse<E: Error>(self, message: String) -> E {
        *self.refusal.borrow_mut() = Some(ParamError::new(message));
        E::custom("refused")
    }

    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(format!(
                "the body nests too deep, allowed: {MAX_DEPTH} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn too_large<E: Error>(self) -> E {
        self.refuse(format!(
            "the body has a number beyond {MAX_SAFE_INTEGER} (2^53 - 1), which JSON readers do not agree on"
        ))
    }

    /// Says which field of the body a refusal was under.
    fn name_field(self, field: &str) {
        if let Some(error) = self.refusal.borrow_mut().as_mut()
            && error.field.is_none()
        {
            error.message = format!("`{}`: {}", shortened(field), error.message);
            error.field = Some(field.to_owned());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_SAFE_INTEGER {
            return Err(self.too_large());
        }
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_SAFE_INTEGER {
            return Err(self.too_large());
        }
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // From 2^53 on every double is whole: a long integer literal arrives here, too.
        if value.abs() > MAX_SAFE_INTEGER as f64 {
            return Err(self.too_large());
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| self.too_large())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match fields.entry(key) {
                Entry::Occupied(twice) => {
                    return Err(self.refuse(format!(
                        "the key `{}` appears twice in one object",
                        shortened(twice.key())
                    )));
                }
                Entry::Vacant(new) => {
                    let value = map.next_value_seed(inside).inspect_err(|_| {
                        if self.depth == 0 {
                            self.name_field(new.key());
                        }
                    })?;
                    new.insert(value);
                }
            }
        }
        Ok(Value::Object(fields))
    }
}

/// A name of the client's as a message may repeat it.
pub(super) fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth(64)
        .map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> ParamError {
        read_json(body.as_bytes()).err().unwrap()
    }

    #[test]
    fn test_duplicate_keys_are_refused_at_any_depth() {
        assert_eq!(
            refused(r#"{"a":1,"a":1}"#).message,
            "the key `a` appears twice in one object"
        );
        let nested = refused(r#"{"tools":[{"x":{"b":1,"b":2}}]}"#);
        assert_eq!(nested.field.as_deref(), Some("tools"));
        assert_eq!(
            nested.message,
            "`tools`: the key `b` appears twice in one object"
        );
    }

    #[test]
    fn test_numbers_beyond_2_to_the_53_are_refused_with_their_field() {
        for number in [
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            "1e16",
            "1e300",
        ] {
            let error = refused(&format!(r#"{{"seed":{number}}}"#));
            assert_eq!(error.field.as_deref(), Some("seed"), "{number}");
            assert!(error.message.contains("2^53"), "{}", error.message);
        }
        assert!(read_json(br#"{"seed":9007199254740991}"#).is_ok());
    }

    #[test]
    fn test_nesting_is_bounded() {
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read_json(nested(63).as_bytes()).is_ok());
        assert!(refused(&nested(64)).message.contains("64 levels"));
        assert!(refused(&nested(5000)).message.contains("64 levels"));
    }

    #[test]
    fn test_what_is_no_json_in_utf8_is_refused() {
        for body in [
            "",
            "{",
            "{}x",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":\"\\ud800\"}",
            "{'a':1}",
        ] {
            assert!(
                refused(body)
                    .message
                    .starts_with("the body is not valid JSON: "),
                "{body}"
            );
        }
        let error = read_json(b"{\"a\":\"\xff\"}").err().unwrap();
        assert_eq!(error.message, "the body is not UTF-8, first bad byte: 6");
    }
}
