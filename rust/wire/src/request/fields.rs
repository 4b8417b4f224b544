//! A JSON body as named fields, taken out one by one; what is left over is unknown.
//!
//! A message names the field, the type that was got (never its content) and what is allowed.

use serde_json::{Map, Value};

use super::ParamError;
use super::ids::parse_uuid;
use super::json::{read_json, shortened};
use crate::errors::reason;
use crate::profile::whole;

/// The fields of a body that nobody has taken yet.
pub(crate) struct Fields {
    left: Map<String, Value>,
}

impl Fields {
    /// Reads a body.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ParamError> {
        match read_json(body)? {
            Value::Object(left) => Ok(Self { left }),
            other => Err(ParamError::new(format!(
                "the body must be a JSON object, got: {}",
                kind(&other)
            ))),
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

    #[test]
    fn test_a_body_that_is_no_object_is_refused() {
        let error = Fields::read(b"[]").err().unwrap();
        assert_eq!(
            error.message,
            "the body must be a JSON object, got: an array"
        );
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
