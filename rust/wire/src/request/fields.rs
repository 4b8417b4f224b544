//! A JSON body as named fields: read once and strictly, then taken out one by one.
//!
//! Refuses what readers disagree about: duplicate keys, numbers beyond 2^53, deep nesting, bytes that are not UTF-8.
//! A message names the field, the type that was got (never its content) and what is allowed.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use super::ParamError;
use super::ids::parse_uuid;
use crate::errors::reason;
use crate::jcs::MAX_SAFE_INTEGER;
use crate::profile::whole;

/// How deep arrays and objects may nest, the body itself included.
pub const MAX_DEPTH: u32 = 64;

/// The fields of a body that nobody has taken yet.
pub(crate) struct Fields {
    left: Map<String, Value>,
}

impl Fields {
    /// Reads a body.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ParamError> {
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
        match read {
            Ok(Value::Object(left)) => Ok(Self { left }),
            Ok(other) => Err(ParamError::new(format!(
                "the body must be a JSON object, got: {}",
                kind(&other)
            ))),
            Err(fault) => Err(refusal.take().unwrap_or_else(|| {
                ParamError::new(format!("the body is not valid JSON: {fault}"))
            })),
        }
    }

    /// The fields of an object that was read already.
    pub(crate) fn of(left: Map<String, Value>) -> Self {
        Self { left }
    }

    /// The fields that are left, as a map.
    pub(crate) fn into_left(self) -> Map<String, Value> {
        self.left
    }

    /// Whether the field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Takes a field as it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)
    }

    /// Takes a string.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ParamError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ParamError::wrong(name, "a string", &other)),
        }
    }

    /// Takes `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ParamError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(ParamError::wrong(name, "`true` or `false`", &other)),
        }
    }

    /// Takes a whole number from 1, or from 0 where `min` says so, up to `max`.
    pub(crate) fn count(
        &mut self,
        name: &str,
        min: u32,
        max: u32,
    ) -> Result<Option<u32>, ParamError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let count = value
            .as_number()
            .and_then(whole)
            .and_then(|n| u32::try_from(n).ok());
        match count.filter(|n| (min..=max).contains(n)) {
            Some(count) => Ok(Some(count)),
            None => Err(ParamError::wrong(
                name,
                &format!("an integer from {min} to {max}"),
                &value,
            )),
        }
    }

    /// Takes one of a few names.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ParamError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let text = value.as_str();
        if let Some((_, choice)) = choices.iter().find(|(label, _)| text == Some(label)) {
            return Ok(Some(*choice));
        }
        let labels: Vec<&str> = choices.iter().map(|(label, _)| *label).collect();
        let allowed = format!("one of `{}`", labels.join("`, `"));
        let mut error = ParamError::wrong(name, &allowed, &value);
        error.hint = text.and_then(|text| did_you_mean(text, labels.into_iter()));
        Err(error)
    }

    /// Takes a uuid.
    pub(crate) fn uuid(&mut self, name: &str) -> Result<Option<[u8; 16]>, ParamError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_str().and_then(parse_uuid) {
            Some(id) => Ok(Some(id)),
            None => Err(ParamError::wrong(name, "a hyphenated uuid", &value)
                .with_hint("leave it out and the server makes one, or send one such as `3f0a2f6e-6b1a-4c55-9f60-2d1b7a4f0c11`")),
        }
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(
        self,
        known: &[&'static str],
        aliases: &[(&str, &str)],
    ) -> Result<(), ParamError> {
        let Some(name) = self.left.keys().next() else {
            return Ok(());
        };
        let hint = aliases
            .iter()
            .find(|(alias, _)| alias == name)
            .map(|(_, hint)| (*hint).to_owned())
            .or_else(|| did_you_mean(name, known.iter().copied()));
        let mut error = ParamError::of(name, format!("unknown field `{}`", shortened(name)));
        error.reason = Some(reason::UNKNOWN_FIELD);
        error.hint = hint;
        Err(error)
    }
}

/// The type of a value, as a message names it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
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
fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth(64)
        .map_or(name, |(end, _)| &name[..end])
}

/// The hint for a misspelt name, if one of the known ones is close.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name: Vec<char> = name.chars().take(65).collect();
    let allowed = name.len().div_ceil(3).clamp(1, 3);
    known
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Levenshtein distance, by rows.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (line, letter) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 1..=a.len() {
            let replaced = diagonal + usize::from(a[column - 1] != letter);
            diagonal = row[column];
            row[column] = replaced.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> ParamError {
        Fields::read(body.as_bytes()).err().unwrap()
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
        assert!(Fields::read(br#"{"seed":9007199254740991}"#).is_ok());
    }

    #[test]
    fn test_nesting_is_bounded() {
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(Fields::read(nested(63).as_bytes()).is_ok());
        assert!(refused(&nested(64)).message.contains("64 levels"));
        assert!(refused(&nested(5000)).message.contains("64 levels"));
    }

    #[test]
    fn test_what_is_no_json_object_in_utf8_is_refused() {
        assert_eq!(
            refused("[]").message,
            "the body must be a JSON object, got: an array"
        );
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
        let error = Fields::read(b"{\"a\":\"\xff\"}").err().unwrap();
        assert_eq!(error.message, "the body is not UTF-8, first bad byte: 6");
    }

    #[test]
    fn test_close_names_are_suggested_and_far_ones_are_not() {
        let known = ["max_tokens", "seed", "stop"];
        assert_eq!(
            did_you_mean("max_token", known.into_iter()).unwrap(),
            "did you mean `max_tokens`?"
        );
        assert_eq!(
            did_you_mean("sead", known.into_iter()).unwrap(),
            "did you mean `seed`?"
        );
        assert_eq!(did_you_mean("zzzz", known.into_iter()), None);
        assert_eq!(did_you_mean(&"x".repeat(5000), known.into_iter()), None);
    }
}
