//! The grammar of an engine's stream: where in an event its text, ids, counts, end and errors stand.
//!
//! An adapter writes it as a JSON document; here it is checked and compiled. Every pointer is RFC 6901. Wherever a
//! list of pointers is allowed, one pointer or `null` will do, and the first that is present in an event wins.
//! `null` in an event counts as not there.
//!
//! | field | meaning |
//! |---|---|
//! | `framing` | `sse` or `ndjson` |
//! | `done` | an event that is exactly this text closes the stream (`[DONE]`); alone it proves no success |
//! | `max_event_bytes` | longest line or event that is accepted; default 1 MiB |
//! | `text` | `{"text", "reasoning", "tool_call"}`: pointers to the token text of each channel. A tool call that is not a string is passed on as the JSON it is |
//! | `ids` | token ids: a number or a list |
//! | `count` | the engine's own running count of output tokens |
//! | `index` | number of the answer inside the response; events of any answer but 0 are ignored |
//! | `skip_if` | an event with one of these (not `null`, not `false`) carries no token |
//! | `mute_if` | an event with one of these (not `null`, not `false`) carries a token whose text is not part of the answer |
//! | `end` | `{"pointer", "equals"}`, `{"pointer", "present": true}` or `{"eof": true}` |
//! | `end_settles` | `event` (default): ended with the end event; `done`: usage may follow, ended with `done` or the end of the body |
//! | `finish_reason` | `{"pointers", "map", "other"?}`; a reason that is not in `map` fails the attempt unless `other` names one |
//! | `usage` | pointers to `tokens_in`, `tokens_out`, `tokens_cached`; the latest event that has one counts |
//! | `error` | `{"pointer", "message", "kind", "code"}`: an event with `pointer` is an error |
//! | `classes` | kind of an error → class |
//! | `classes_by_message` | part of an error's message → class; looked at first |

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::adapter::AdapterError;
use crate::extract::{Paths, Slot};
use crate::fault::FaultClass;
use crate::framing::Framing;
use crate::scan::Span;
use crate::vocabulary::FinishReason;

/// A checked and compiled grammar; shared by all attempts of a route.
#[derive(Clone, Debug)]
pub struct Grammar {
    pub(crate) framing: Framing,
    pub(crate) done: Option<Box<[u8]>>,
    pub(crate) max_event_bytes: usize,
    pub(crate) paths: Paths,
    /// Pointers of [`crate::vocabulary::Channel`] 0, 1 and 2.
    pub(crate) text: [Choice; 3],
    pub(crate) ids: Choice,
    pub(crate) count: Choice,
    pub(crate) index: Choice,
    pub(crate) skip_if: Choice,
    pub(crate) mute_if: Choice,
    pub(crate) end: EndRule,
    pub(crate) settles: Settles,
    pub(crate) reason: ReasonRule,
    pub(crate) usage: UsageRule,
    pub(crate) error: ErrorRule,
}

/// Pointers of which the first present one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice(Box<[Slot]>);

impl Choice {
    /// The spans of the pointers, in order.
    pub(crate) fn all<'a>(&'a self, found: &'a [Span]) -> impl Iterator<Item = Span> + 'a {
        self.0.iter().map(|slot| found[usize::from(*slot)])
    }

    pub(crate) fn first(&self, found: &[Span]) -> Option<Span> {
        self.all(found).find(|span| span.is_present())
    }
}

/// What marks the last event of an answer.
#[derive(Clone, Debug)]
pub(crate) enum EndRule {
    /// The value is this, as JSON text.
    Equals(Slot, Scalar),
    /// The value is there.
    Present(Slot),
    /// Nothing does: the body ends.
    Eof,
}

/// A JSON value that an end rule compares with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Bool(bool),
    Number(u32),
    Text(String),
}

/// When an attempt is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Settles {
    #[default]
    Event,
    Done,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ReasonRule {
    pub pointers: Choice,
    pub map: BTreeMap<String, FinishReason>,
    pub other: Option<FinishReason>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct UsageRule {
    pub tokens_in: Choice,
    pub tokens_out: Choice,
    pub tokens_cached: Choice,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorRule {
    pub pointer: Choice,
    pub message: Choice,
    pub kind: Choice,
    pub code: Choice,
    pub classes: BTreeMap<String, FaultClass>,
    pub classes_by_message: BTreeMap<String, FaultClass>,
}

impl Grammar {
    /// Reads a grammar document.
    ///
    /// # Errors
    /// Names the field that is wrong and says what it may be.
    pub fn parse(json: &str) -> Result<Self, AdapterError> {
        crate::adapter::read_document::<GrammarDocument>(json).map(Self::compile)
    }

    pub(crate) fn compile(document: GrammarDocument) -> Self {
        let mut paths = Paths::default();
        let mut choice = |pointers: Pointers| pointers.compile(&mut paths);
        let text = [
            choice(document.text.text),
            choice(document.text.reasoning),
            choice(document.text.tool_call),
        ];
        let reason = ReasonRule {
            pointers: choice(document.finish_reason.pointers),
            map: document.finish_reason.map,
            other: document.finish_reason.other,
        };
        let usage = UsageRule {
            tokens_in: choice(document.usage.tokens_in),
            tokens_out: choice(document.usage.tokens_out),
            tokens_cached: choice(document.usage.tokens_cached),
        };
        let error = ErrorRule {
            pointer: choice(document.error.pointer),
            message: choice(document.error.message),
            kind: choice(document.error.kind),
            code: choice(document.error.code),
            classes: document.classes,
            classes_by_message: document.classes_by_message,
        };
        Self {
            framing: document.framing,
            done: document.done.0,
            max_event_bytes: document.max_event_bytes.0,
            text,
            ids: choice(document.ids),
            count: choice(document.count),
            index: choice(document.index),
            skip_if: choice(document.skip_if),
            mute_if: choice(document.mute_if),
            end: document.end.compile(&mut paths),
            settles: document.end_settles,
            reason,
            usage,
            error,
            paths,
        }
    }
}

/// The document as an adapter writes it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrammarDocument {
    framing: Framing,
    #[serde(default)]
    done: DoneMarker,
    #[serde(default)]
    max_event_bytes: EventLimit,
    text: TextDocument,
    #[serde(default)]
    ids: Pointers,
    #[serde(default)]
    count: Pointers,
    #[serde(default)]
    index: Pointers,
    #[serde(default)]
    skip_if: Pointers,
    #[serde(default)]
    mute_if: Pointers,
    end: EndDocument,
    #[serde(default)]
    end_settles: Settles,
    #[serde(default)]
    finish_reason: ReasonDocument,
    #[serde(default)]
    usage: UsageDocument,
    #[serde(default)]
    error: ErrorDocument,
    #[serde(default)]
    classes: BTreeMap<String, FaultClass>,
    #[serde(default)]
    classes_by_message: BTreeMap<String, FaultClass>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TextDocument {
    text: Pointers,
    #[serde(default)]
    reasoning: Pointers,
    #[serde(default)]
    tool_call: Pointers,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonDocument {
    #[serde(default)]
    pointers: Pointers,
    #[serde(default)]
    map: BTreeMap<String, FinishReason>,
    #[serde(default)]
    other: Option<FinishReason>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageDocument {
    #[serde(default)]
    tokens_in: Pointers,
    #[serde(default)]
    tokens_out: Pointers,
    #[serde(default)]
    tokens_cached: Pointers,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorDocument {
    #[serde(default)]
    pointer: Pointers,
    #[serde(default)]
    message: Pointers,
    #[serde(default)]
    kind: Pointers,
    #[serde(default)]
    code: Pointers,
}

/// `[DONE]` or nothing.
#[derive(Default, serde::Deserialize)]
#[serde(try_from = "Option<String>")]
struct DoneMarker(Option<Box<[u8]>>);

impl TryFrom<Option<String>> for DoneMarker {
    type Error = &'static str;

    fn try_from(marker: Option<String>) -> Result<Self, Self::Error> {
        match marker {
            Some(text) if text.trim_ascii().is_empty() => {
                Err("must be the text of the closing event such as `[DONE]`, or `null`")
            }
            Some(text) => Ok(Self(Some(text.trim_ascii().as_bytes().into()))),
            None => Ok(Self(None)),
        }
    }
}

/// The longest event, within what a daemon can hold for every stream at once.
#[derive(serde::Deserialize)]
#[serde(try_from = "u64")]
struct EventLimit(usize);

impl Default for EventLimit {
    fn default() -> Self {
        Self(1 << 20)
    }
}

impl TryFrom<u64> for EventLimit {
    type Error = &'static str;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        match usize::try_from(bytes) {
            Ok(bytes) if (1024..=64 << 20).contains(&bytes) => Ok(Self(bytes)),
            _ => Err("must be between 1024 and 67108864 bytes"),
        }
    }
}

/// The `end` object: which of the three forms is meant is decided once, here.
#[derive(serde::Deserialize)]
#[serde(try_from = "EndForm")]
enum EndDocument {
    Equals(Pointer, Scalar),
    Present(Pointer),
    Eof,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct EndForm {
    pointer: Option<Pointer>,
    equals: Option<serde_json::Value>,
    present: Option<bool>,
    eof: Option<bool>,
}

impl TryFrom<EndForm> for EndDocument {
    type Error = &'static str;

    fn try_from(form: EndForm) -> Result<Self, Self::Error> {
        match (form.pointer, form.equals, form.present, form.eof) {
            (Some(pointer), Some(value), None, None) => Ok(Self::Equals(pointer, scalar(&value)?)),
            (Some(pointer), None, Some(true), None) => Ok(Self::Present(pointer)),
            (None, None, None, Some(true)) => Ok(Self::Eof),
            _ => Err("give `pointer` with either `equals` or `present`: true, or only `eof`: true"),
        }
    }
}

fn scalar(value: &serde_json::Value) -> Result<Scalar, &'static str> {
    let number = || value.as_u64().and_then(|number| u32::try_from(number).ok());
    value
        .as_bool()
        .map(Scalar::Bool)
        .or_else(|| value.as_str().map(|text| Scalar::Text(text.to_owned())))
        .or_else(|| number().map(Scalar::Number))
        .ok_or("`equals` must be true, false, a text or a whole number from 0 to 4294967295")
}

impl EndDocument {
    fn compile(self, paths: &mut Paths) -> EndRule {
        match self {
            Self::Equals(pointer, value) => EndRule::Equals(paths.insert(&pointer.0), value),
            Self::Present(pointer) => EndRule::Present(paths.insert(&pointer.0)),
            Self::Eof => EndRule::Eof,
        }
    }
}

/// Longest pointer: extraction recurses once per step.
const MAX_STEPS: usize = 16;

/// A checked JSON pointer.
#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct Pointer(String);

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let escapes_are_right = text
            .split('~')
            .skip(1)
            .all(|after| after.starts_with(['0', '1']));
        if !text.starts_with('/') || !escapes_are_right {
            return Err(format!(
                "must be a JSON pointer such as `/choices/0/text`, but is: `{text}`"
            ));
        }
        if text.split('/').count() > MAX_STEPS + 1 {
            return Err(format!("must have at most {MAX_STEPS} steps: `{text}`"));
        }
        Ok(Self(text))
    }
}

/// No pointer, one, or a list.
#[derive(Default)]
struct Pointers(Vec<Pointer>);

impl Pointers {
    fn compile(self, paths: &mut Paths) -> Choice {
        Choice(
            self.0
                .iter()
                .map(|pointer| paths.insert(&pointer.0))
                .collect(),
        )
    }
}

impl<'de> Deserialize<'de> for Pointers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PointersVisitor)
    }
}

struct PointersVisitor;

impl<'de> Visitor<'de> for PointersVisitor {
    type Value = Pointers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON pointer such as `/content`, a list of them, or null")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pointers, E> {
        let pointer = Pointer::try_from(text.to_owned()).map_err(E::custom)?;
        Ok(Pointers(vec![pointer]))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Pointers, E> {
        Ok(Pointers::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pointers, A::Error> {
        let mut pointers = Vec::new();
        while let Some(pointer) = list.next_element::<Pointer>()? {
            pointers.push(pointer);
        }
        Ok(Pointers(pointers))
    }
}

#[cfg(test)]
mod tests {
    use super::{Grammar, Settles};
    use serde_json::{Value, json};

    fn smallest() -> Value {
        json!({"framing": "sse", "text": {"text": ["/content"]}, "end": {"pointer": "/stop", "equals": true}})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut document = smallest();
        document[field] = value;
        document
    }

    fn refusal(document: &Value) -> String {
        match Grammar::parse(&document.to_string()) {
            Ok(_) => panic!("accepted: {document}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn test_a_small_grammar_has_defaults() {
        let grammar = Grammar::parse(&smallest().to_string()).unwrap();
        assert_eq!(grammar.max_event_bytes, 1 << 20);
        assert_eq!(grammar.settles, Settles::Event);
        assert!(grammar.done.is_none() && grammar.ids.0.is_empty());
    }

    #[test]
    fn test_every_form_of_the_end_is_accepted() {
        for end in [
            json!({"eof": true}),
            json!({"pointer": "/choices/0/finish_reason", "present": true}),
            json!({"pointer": "/status", "equals": "finished"}),
            json!({"pointer": "/left", "equals": 0}),
        ] {
            assert!(
                Grammar::parse(&with("end", end.clone()).to_string()).is_ok(),
                "{end}"
            );
        }
    }

    #[test]
    fn test_refusals_name_the_field_and_what_it_may_be() {
        for (document, parts) in [
            (with("framng", json!(1)), ["framng", "`framing`"]),
            (with("framing", json!("xml")), ["`framing`", "`ndjson`"]),
            (with("done", json!(" ")), ["`done`", "[DONE]"]),
            (
                with("max_event_bytes", json!(3)),
                ["`max_event_bytes`", "between 1024"],
            ),
            (
                with("text", json!({"text": ["content"]})),
                ["`text.text[0]`", "must be a JSON pointer"],
            ),
            (
                with("text", json!({"speech": "/a"})),
                ["`text.speech`", "`reasoning`"],
            ),
            (
                with("ids", json!("/a~2")),
                ["`ids`", "must be a JSON pointer"],
            ),
            (with("count", json!(7)), ["`count`", "a list of them"]),
            (
                with("end", json!({"pointer": "/a"})),
                ["`end`", "either `equals` or `present`"],
            ),
            (
                with("end", json!({"pointer": "/a", "equals": []})),
                ["`end`", "must be true, false"],
            ),
            (
                with("finish_reason", json!({"map": {"eos": "done"}})),
                ["`finish_reason.map.eos`", "`length`"],
            ),
            (
                with("classes", json!({"x": "fatal"})),
                ["`classes.x`", "`context_overflow`"],
            ),
            (
                with("skip_if", json!("/a".repeat(20))),
                ["`skip_if`", "at most 16 steps"],
            ),
        ] {
            let message = refusal(&document);
            for part in parts {
                assert!(message.contains(part), "`{part}` is missing in: {message}");
            }
        }
        assert!(refusal(&json!({"framing": "sse"})).contains("missing field `text`"));
    }
}
